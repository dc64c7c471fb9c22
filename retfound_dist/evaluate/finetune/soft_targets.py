"""Targets and loss of a training batch: smoothed, mixed and weighted.

Shapes: B batch, S side, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor, nn

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.finetune.training_batches import seeded_generators
from retfound_dist.evaluate.scores.metrics import Labels

_MIX = 14


def class_weights(labels_N: Labels, classes: int, recipe: Finetune) -> Tensor | None:
    """(C,) the weight of an image of each class; None where all weigh the same.

    `balanced` as in scikit-learn: N / (C n_c), so that all classes have the same total weight, and the mean
    weight of a train image is 1.
    """
    if recipe.class_weights == "none":
        return None
    counts_C = np.bincount(labels_N, minlength=classes)
    return torch.from_numpy(len(labels_N) / (classes * np.maximum(counts_C, 1))).float()


def training_loss(logits_BC: Tensor, targets_BC: Tensor, weights_C: Tensor | None = None) -> Tensor:
    """Cross entropy against shares of classes: the batch's mean of -sum_c w_c t_c ln p_c."""
    # With shares as targets PyTorch divides by the batch; with indices, by the sum of the weights.
    return nn.functional.cross_entropy(logits_BC.float(), targets_BC, weight=weights_C)


class Mixer:
    """Mixup and cutmix (timm's, one draw a batch), drawn from (seed, epoch, step) alone."""

    def __init__(self, recipe: Finetune, classes: int, seed: int) -> None:
        self.recipe, self.classes, self.seed = recipe, classes, seed
        self.mixup = (
            Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=classes,
            )
            if recipe.mixup > 0 or recipe.cutmix > 0
            else None
        )

    def __call__(self, images_B3SS: Tensor, labels_B: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Images (mixed in place) and their targets (B, C), smoothed whether mixed or not.

        Image i is mixed with the one as far from the end; an odd batch's last image stays as it is.
        """
        targets_BC = mixup_target(labels_B, self.classes, 1.0, self.recipe.label_smoothing)
        # timm mixes image i with the i-th from the end and asserts an even batch.
        even = len(labels_B) // 2 * 2
        if self.mixup is not None and even:
            with seeded_generators((self.seed, _MIX, epoch, step)):
                _, targets_BC[:even] = self.mixup(images_B3SS[:even], labels_B[:even])
        return images_B3SS, targets_BC
