"""Comparisons with a few patients of each class.

May import `evaluate.report` and all that it may import.
"""
