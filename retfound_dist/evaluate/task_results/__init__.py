"""Evaluations and comparisons of tasks other than one class of several: files, tables, plots, pages.

May import `evaluate.report`, `evaluate.tasks` and all that they may import.
"""
