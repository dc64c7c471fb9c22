"""Classifiers that an evaluation keeps: their folder, and the network that predicts new images.

May import `evaluate.finetune` and all that it may import.
"""
