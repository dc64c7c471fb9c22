"""Image encoders of any family, behind one small interface that the evaluator uses.

May import `model.weights` and all that it may import.
"""
