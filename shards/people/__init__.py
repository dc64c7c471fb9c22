"""Names of people in what a source calls its images: found, replaced by keyed digests, written apart.

May import `shards.images` and the base rooms.
"""
