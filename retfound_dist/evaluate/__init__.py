"""Evaluates checkpoints: fine-tuning, probes, scores, comparisons and pages.

May import `model`, `stream` and the base rooms; never `train`, `plan`, `runs` or `shards`.
"""
