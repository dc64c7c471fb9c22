"""`retfound doctor`: checks the machines of a run before the run, with its own config, shards and model.

May import all rooms that `retfound pretrain` uses, and `plan`. Nothing imports this room but `cli`.
"""
