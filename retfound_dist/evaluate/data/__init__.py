"""The labelled set, its parts, and the starting weights.

May import `evaluate.scores`, `model`, `listing`, `images`, `formats` and what lies below them.
"""
