"""Published data sets, one module each, with licences and citations.

May import `shards.sources.folders`, `shards.sources.devices` and `shards.images`.
"""
