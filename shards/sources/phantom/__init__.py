"""A generated OCT corpus: eyes, lesions, tissue, optics.

May import `shards.sources.devices` and `shards.images`.
"""
