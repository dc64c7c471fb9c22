"""Runs after they began: lists, pages, the dashboard, model cards.

May import `evaluate`, `model`, `stream`, `formats` and what lies below them.
"""
