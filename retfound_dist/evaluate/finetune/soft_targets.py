"""Targets and loss of a training batch: label smoothing, mixup and cutmix, class weights.

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
    """(C,) weight of each class; None where all weights are equal.

    `balanced` is N / (C n_c), as in scikit-learn: all classes have the same total weight, and the mean weight
    of a train image is 1.
    """
    if recipe.class_weights == "none":
        return None
    counts_C = np.bincount(labels_N, minlength=classes)
    return torch.from_numpy(len(labels_N) / (classes * np.maximum(counts_C, 1))).float()


def training_loss(logits_BC: Tensor, targets_BC: Tensor, weights_C: Tensor | None = None) -> Tensor:
    """Cross entropy with soft targets: the mean over the batch of -sum_c w_c t_c ln p_c."""
    # With soft targets PyTorch divides by the batch; with class indices, by the sum of the weights.
    return nn.functional.cross_entropy(logits_BC.float(), targets_BC, weight=weights_C)


class Mixer:
    """Mixup and cutmix by timm, one draw for each batch. A draw depends only on (seed, epoch, step)."""

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
        """The images, mixed in place, and their targets (B, C), which are always smoothed.

        Image i is mixed with the i-th image from the end. The last image of an odd batch stays as it is.
        """
        targets_BC = mixup_target(labels_B, self.classes, 1.0, self.recipe.label_smoothing)
        # timm refuses an odd batch.
        even = len(labels_B) // 2 * 2
        if self.mixup is not None and even:
            with seeded_generators((self.seed, _MIX, epoch, step)):
                _, targets_BC[:even] = self.mixup(images_B3SS[:even], labels_B[:even])
        return images_B3SS, targets_BC
