"""What is evaluated: the labelled set, its parts, the weights to start from.

May import `evaluate.scores`, `model`, `listing`, `images`, `formats` and what lies below them.
"""
