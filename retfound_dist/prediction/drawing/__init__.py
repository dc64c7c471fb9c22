"""Heat maps in files, and the page of predictions.

May import `evaluate`, `model`, `stream`, `shards` and what lies below them.
"""
