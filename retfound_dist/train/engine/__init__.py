"""The engines that train a model: DeepSpeed's, and one for a single rank. Only this room imports DeepSpeed.

May import `train.ranks`, `model`, `stream` and what lies below them.
"""
