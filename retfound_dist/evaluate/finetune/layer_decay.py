"""RETFound's fine-tuning rule book as pure functions: groups, learning rate, choice of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay

from retfound_dist.config.schema import Finetune

# timm spares biases and norms by their one axis; tokens and positions have three, so they are named.
_TOKENS = ("pos_embed", "cls_token")


def parameter_groups(model: VisionTransformer, recipe: Finetune) -> list[dict[str, Any]]:
    """AdamW's groups, each with its `lr_scale` = layer_decay ^ (depth + 1 - layer).

    Layers as in BEiT: embeddings are 0, block i is i + 1, `fc_norm` and the head are depth + 1. Biases,
    norms, tokens and positions have no weight decay.
    """
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        model, weight_decay=recipe.weight_decay, no_weight_decay_list=_TOKENS, layer_decay=recipe.layer_decay
    )
    return groups


def peak_lr(recipe: Finetune) -> float:
    """base_lr x batch / 256."""
    return recipe.base_lr * recipe.batch / 256


def learning_rate(epoch: float, recipe: Finetune) -> float:
    """The head's rate at a moment, in epochs done: linear warm-up from 0, then half a cosine to min_lr."""
    peak, warmup = peak_lr(recipe), min(recipe.warmup_epochs, recipe.epochs)
    if epoch < warmup:
        return peak * epoch / warmup
    # A warm-up may be as long as the training: then there is nothing to divide by.
    done = (epoch - warmup) / max(recipe.epochs - warmup, 1e-9)
    return recipe.min_lr + (peak - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def choose_epoch(history: Sequence[dict[str, Any]]) -> int:
    """Place of the epoch to keep, by validation only.

    Highest macro AUROC over the classes that val holds; of equals the lower val loss, then the
    earlier. Without a val part: the last.
    """
    if not history or history[-1]["val_loss"] is None:
        return len(history) - 1

    def rank(place: int) -> tuple[float, float]:
        row = history[place]
        return (row["val_auroc"] if row["val_auroc"] is not None else 0.0, -row["val_loss"])

    return max(range(len(history)), key=lambda place: (*rank(place), -place))
