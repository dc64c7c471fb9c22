"""Reads and writes weights: checkpoints of this project, files of MAE, RETFound, timm and others, exports.

May import `model`, `formats`, `records`, `config` and `io`.
"""

from retfound_dist.model.weights.weight_files import read_weights

__all__ = ["read_weights"]
