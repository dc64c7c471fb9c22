"""RETFound's fine-tuning recipe as pure functions: parameter groups, learning rate, choice of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn

from retfound_dist.config.schema import Finetune

# timm exempts biases and norms from weight decay because they have one axis. Tokens and positions have three.
_NO_WEIGHT_DECAY = ("pos_embed", "cls_token")


def parameter_groups(model: nn.Module, recipe: Finetune) -> list[dict[str, Any]]:
    """AdamW's groups, each with its `lr_scale` = layer_decay ^ (depth + 1 - layer).

    The layers are those that timm gives for the family (`group_matcher`). Of a ViT, as in BEiT: embeddings
    are 0, block i is i + 1, `fc_norm` and the head are depth + 1. Biases, norms, tokens and positions have
    no weight decay.
    """
    # What the family itself exempts: register tokens, relative positions.
    family: Any = model
    exempt = family.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        model,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=(*_NO_WEIGHT_DECAY, *exempt),
        layer_decay=recipe.layer_decay,
    )
    return groups


def peak_lr(recipe: Finetune) -> float:
    """base_lr x batch / 256."""
    return recipe.base_lr * recipe.batch / 256


def learning_rate(epoch: float, recipe: Finetune) -> float:
    """The head's learning rate after `epoch` epochs: linear warm-up from 0, then half a cosine to min_lr."""
    peak, warmup = peak_lr(recipe), min(recipe.warmup_epochs, recipe.epochs)
    if epoch < warmup:
        return peak * epoch / warmup
    # A warm-up as long as the training leaves no epochs: without max() this would divide by 0.
    done = (epoch - warmup) / max(recipe.epochs - warmup, 1e-9)
    return recipe.min_lr + (peak - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def choose_epoch(history: Sequence[dict[str, Any]]) -> int:
    """Index of the epoch to keep, chosen on the val part alone.

    The highest macro AUROC over the classes in val, or `val_score` of another task; among equals the lower
    val loss, then the earlier epoch. Without a val part it is the last epoch.
    """
    if not history or history[-1]["val_loss"] is None:
        return len(history) - 1

    def rank(index: int) -> tuple[float, float]:
        row = history[index]
        score = row.get("val_score", row["val_auroc"])
        return (-math.inf if score is None else score, -row["val_loss"])

    return max(range(len(history)), key=lambda index: (*rank(index), -index))
