"""One adapter for each kind of dataset. Each lists scans without decoding them.

`adapters` may import every room of `shards.sources`.
"""
