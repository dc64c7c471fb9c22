"""The pretraining run: its set-up, the training loop and one step.

May import every room of `train`, `model`, `stream` and the base rooms; never `evaluate`, `plan`, `runs` or
`shards`.
"""
