"""One adapter for each kind of data set. It lists the scans without decoding them.

`adapters` may import every room of `shards.sources`.
"""
