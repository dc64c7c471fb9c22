"""Writes samples into tar shards, index files and a manifest. Each file is committed in one step.

May import `shards.planning`, `shards.people` and `shards.images`.
"""
