"""DeepSpeed, and a small engine for one rank on a CPU. The only room that imports DeepSpeed.

May import `train.ranks`, `model`, `stream` and what lies below them.
"""
