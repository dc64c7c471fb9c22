"""The process itself: its rank, its worker processes, its terminal, progress displays and plots.

May import `io`. Knows nothing of images, shards or models.
"""
