"""Reads and writes weights: our checkpoints, the files of MAE, RETFound, timm and others, exports.

May import `model`, `formats`, `records`, `config` and `io`.
"""

from retfound_dist.model.weights.weight_files import read_weights

__all__ = ["read_weights"]
