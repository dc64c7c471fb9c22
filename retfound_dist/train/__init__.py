"""The pretraining run: the trainer, one step, what a start sets up.

May import every room of `train`, `model`, `stream` and the base rooms; never `evaluate`, `plan`, `runs` or
`shards`.
"""
