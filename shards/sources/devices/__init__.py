"""Raw exports of OCT devices, one module a format.

May import `shards.sources.folders` and `shards.images`.
"""
