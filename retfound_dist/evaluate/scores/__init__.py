"""Scores and their intervals: metrics, bootstrap, calibration, and scores in words.

May import `files`, `listing` and `config`. Imports no torch.
"""
