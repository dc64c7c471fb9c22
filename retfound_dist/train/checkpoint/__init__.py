"""Saves and restores checkpoints: parts of all ranks, one commit, resuming on any number of ranks.

May import `train.engine`, `train.health`, `train.logs`, `train.ranks` and the rooms below them.
"""
