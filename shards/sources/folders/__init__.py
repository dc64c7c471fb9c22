"""Folders of image files, lists of files, and what the adapters of published sets share.

May import `shards.images` and `shards.people`.
"""
