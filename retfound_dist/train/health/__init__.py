"""The health of a run: steps that went wrong, samples that could not be read, one writer a run.

May import `train.logs`, `train.ranks`, `stream` and what lies below them.
"""
