"""Records of a run: metrics, events, TensorBoard, profiles, and the display on the terminal.

May import `train.ranks`, `formats` and the rooms below them.
"""
