"""Evaluations for people: the page, its plots, tables, comparisons.

May import `evaluate.results` and all that it may import.
"""
