"""Samples into tar shards, index files and a manifest, each committed whole.

May import `shards.planning`, `shards.people` and `shards.images`.
"""
