"""`retfound predict`: a kept classifier predicts new images.

May import `evaluate`, `model`, `stream`, `shards` and what lies below them.
"""
