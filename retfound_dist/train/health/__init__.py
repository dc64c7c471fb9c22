"""The health of a run: anomalies of steps, bad samples, and the lock that allows one writer.

May import `train.logs`, `train.ranks`, `stream` and the rooms below them.
"""
