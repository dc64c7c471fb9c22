"""Evaluations as files: scores, predictions, pictures, and whether the one asked for is there already.

May import `evaluate.probe` and all that it may import.
"""
