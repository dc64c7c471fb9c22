"""`retfound evaluate`, `compare`, `watch` and `embed`.

May import every room of `evaluate` and what lies below them.
"""
