"""Parameter groups and the learning rate, as pure functions."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from retfound_dist.config.schema import Optim


def peak_lr(base_lr: float, batch: int) -> float:
    """Linear scaling: base_lr x batch / 256 (Goyal et al. 2017; MAE, appendix A.1)."""
    return base_lr * batch / 256


def lr_at(samples: float, total: float, warmup: float, peak: float, lowest: float) -> float:
    """Learning rate after `samples` of `total` images: linear warm-up, then a half-cosine to `lowest`."""
    if samples < warmup:
        return peak * samples / warmup
    # At least 1: if the warm-up is as long as the run, nothing is left for the cosine.
    done = min(1.0, (samples - warmup) / max(1.0, total - warmup))
    return lowest + (peak - lowest) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Two groups for AdamW: one with weight decay, and one without for biases and norms, as in MAE."""
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_excluded = parameter.ndim <= 1 or name.endswith(".bias")
            (no_decay if is_excluded else decay).append(parameter)
    return [{"params": decay, "weight_decay": optim.weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
