"""Runs as people look at them: lists, pages, the dashboard, and model cards.

May import `stream`, `model`, `evaluate` and `base`. Reads what is committed; trains and evaluates nothing.
"""
