"""One scan: what a source yields, checked and prepared pixels, pictures that are no B-scans.

May import `retfound_dist.images` and other base rooms. No other room of `shards`.
"""
