"""Evaluations as files: scores, predictions, pictures; checks of existing results.

May import `evaluate.probe` and all that it may import.
"""
