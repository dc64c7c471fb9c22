"""Folders of image files, lists of files, and functions that the adapters of published sets share.

May import `shards.images` and `shards.people`.
"""
