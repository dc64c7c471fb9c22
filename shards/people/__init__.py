"""Finds names of people in file names and lists, replaces them by keyed digests, and writes a table of both.

May import `shards.images` and the base rooms.
"""
