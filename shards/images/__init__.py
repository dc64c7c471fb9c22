"""One scan: its description, its checked and prepared pixels, and pictures that are not B-scans.

May import `retfound_dist.images` and other base rooms. No other room of `shards`.
"""
