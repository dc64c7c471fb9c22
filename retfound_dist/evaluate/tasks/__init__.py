"""Tasks other than one class of several: labels of yes or no, a number, a grade. Losses, outputs and scores.

May import `evaluate.data` and all that it may import.
"""
