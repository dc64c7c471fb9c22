"""Fine-tuning a classifier: batches, targets, layer decay, several seeds, heat maps.

May import `evaluate.data`, `evaluate.scores`, `model`, `stream` and what lies below them.
"""
