"""What a run records of itself: metrics, events, TensorBoard, profiles, the line on the terminal.

May import `train.ranks`, `formats` and what lies below them.
"""
