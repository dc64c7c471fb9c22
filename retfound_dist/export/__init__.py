"""`retfound export`: weights and classifiers for other programs, with a card that says what they are.

May import all blocks but `train`, `plan`, `shards` and `cli`.
"""
