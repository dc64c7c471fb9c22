"""Predicts volumes, eyes or patients from their images, with the fine-tuned network.

`mean`: the mean of the images' logits. `attention`: a head over the network's features, which is trained on
the train part's units and stopped by the val part.

Shapes: N images, U units, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.finetune.layer_decay import choose_epoch
from retfound_dist.evaluate.finetune.objectives import NO_VALIDATION, ClassObjective
from retfound_dist.evaluate.finetune.soft_targets import class_weights
from retfound_dist.evaluate.finetune.training_batches import seeded_generators
from retfound_dist.evaluate.pixels.gray_pixels import Pixels, resize_for_testing
from retfound_dist.evaluate.scores import metrics
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.units.attention_pool import AttentionPool, Features, attend, pad_units
from retfound_dist.evaluate.units.slice_pooling import SliceScores, deciding_images, mean_of_logits
from retfound_dist.evaluate.units.unit_parts import part_of_units
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.model.backbones.backbone import Backbone

EPOCHS, UNITS_IN_BATCH, RATE, DECAY = 40, 16, 1e-3, 1e-2
"""The training of the attention: AdamW at a constant rate. The val part chooses the epoch."""
# The purpose in the keys of random generators; finetuning.py lists all of them.
_ATTENTION = 16
ReadFeatures = Callable[[Sequence[Pixels]], Features]
"""Features (N, D) of images (S, S)."""


@dataclass(frozen=True)
class TrainedAttention:
    """The attention head of one fine-tuning."""

    pool: AttentionPool
    epoch: int
    """The chosen epoch, counted from 1. 0: the mean of the logits, as it begins."""
    val_auroc: float | None
    """Of the units of val; None without a val part."""


def uses_attention(data: LabelledSet, recipe: Finetune) -> bool:
    """Whether units are predicted by an attention head."""
    return data.unit != IMAGE and recipe.pool == "attention"


@torch.inference_mode()
def head_inputs(
    model: Any, backbone: Backbone, images: Sequence[Pixels], *, batch: int, bf16: bool
) -> Features:
    """Features (N, D) in fp32: the input of the network's classifier, for grey images (S, S).

    `batch`: number of images in each forward pass, which must be the one that predicts the test part. The
    last pass is filled up with black images: the last bits of a result can depend on the size of a pass.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for start in range(0, len(images), batch):
        pixels_B1SS = torch.from_numpy(np.stack(images[start : start + batch])[:, None])
        missing = batch - len(pixels_B1SS)
        pixels_B1SS = torch.cat([pixels_B1SS, pixels_B1SS.new_zeros(missing, *pixels_B1SS.shape[1:])])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            tokens = model.forward_features(backbone.preparation.normalise(pixels_B1SS.to(device)))
            features_BD = model.forward_head(tokens, pre_logits=True).flatten(1).float()
        rows.append(features_BD.cpu().numpy())
    return np.concatenate(rows)[: len(images)]


class FeaturesOnce:
    """`ReadFeatures` that keeps the features of the last images: val chooses the epoch and is pooled.

    Images are the same where they are the same object.
    """

    def __init__(self, read: ReadFeatures) -> None:
        self._read = read
        self._last: tuple[Sequence[Pixels], Features] | None = None

    def __call__(self, images: Sequence[Pixels]) -> Features:
        """(N, D)"""
        if self._last is None or self._last[0] is not images:
            self._last = images, self._read(images)
        return self._last[1]


def pool_images(
    part: SplitPart,
    probabilities_NC: Floats,
    unit: str,
    attention: TrainedAttention | None = None,
    read_features: ReadFeatures | None = None,
) -> tuple[Floats, SliceScores | None]:
    """Probabilities (U, C) of a part's units, and what they were made of; None where images are scored."""
    if unit == IMAGE:
        return probabilities_NC, None
    index = part.index(unit)
    if attention is None or read_features is None:
        return mean_of_logits(probabilities_NC, index), SliceScores(probabilities_NC)
    pooled_UC, weights_N = attend(attention.pool, read_features(part.images), index)
    return pooled_UC, SliceScores(probabilities_NC, weights_N)


def shown_images(data: LabelledSet, result: Any) -> NDArray[np.int64] | None:
    """The image of each unit of test that decided a `FinetuneResult`; None where images are scored."""
    if result.slices is None:
        return None
    return deciding_images(result.slices, result.probabilities, data.parts["test"].index(data.unit))


def fit_attention(
    model: Any,
    backbone: Backbone,
    data: LabelledSet,
    recipe: Finetune,
    seed: int,
    read_features: ReadFeatures,
) -> TrainedAttention:
    """Train the attention head on the units of train; the epoch is chosen by the units of val."""
    train, val = data.parts["train"], data.parts["val"]
    side, interpolation = backbone.image_size, backbone.preparation.interpolation
    # Train images are stored larger, for random crops.
    features_ND = torch.from_numpy(
        read_features([resize_for_testing(image, side, interpolation) for image in train.images])
    )
    score_val = _ValScores(val, read_features(val.images) if len(val) else None, data.unit)
    device = next(model.parameters()).device
    index = train.index(data.unit)
    labels_U = part_of_units(train, data.unit).labels
    weights_C = class_weights(labels_U, len(data.classes), recipe)
    objective = ClassObjective(data, recipe, seed)
    with seeded_generators((seed, _ATTENTION)):
        pool = AttentionPool(features_ND.shape[1], len(data.classes))
        pool.start_from(features_ND, linear_classifier(model))
        pool.to(device)
        training = _AttentionTraining(pool, features_ND.to(device), labels_U, weights_C, recipe)
        history, best_state = [], {}
        for epoch in range(EPOCHS + 1):
            if epoch:
                training.run_epoch(index.images_of_units)
            history.append(score_val(pool, objective))
            if choose_epoch(history) == epoch:
                best_state = {name: tensor.clone() for name, tensor in pool.state_dict().items()}
    pool.load_state_dict(best_state)
    chosen = choose_epoch(history)
    return TrainedAttention(pool.eval().requires_grad_(False), chosen, history[chosen]["val_auroc"])


class _AttentionTraining:
    """The attention head, its optimiser and the units of train."""

    def __init__(
        self,
        pool: AttentionPool,
        features_ND: Tensor,
        labels_U: metrics.Labels,
        weights_C: Tensor | None,
        recipe: Finetune,
    ) -> None:
        self.pool, self.features_ND, self.smoothing = pool, features_ND, recipe.label_smoothing
        self.labels_U = torch.from_numpy(labels_U).to(features_ND.device)
        self.weights_C = None if weights_C is None else weights_C.to(features_ND.device)
        self.optimizer = torch.optim.AdamW(pool.parameters(), lr=RATE, weight_decay=DECAY)

    def run_epoch(self, images_of_units: Sequence[Any]) -> None:
        """One pass over the units, in random order."""
        self.pool.train()
        order = torch.randperm(len(images_of_units)).tolist()
        for start in range(0, len(order), UNITS_IN_BATCH):
            units_B = order[start : start + UNITS_IN_BATCH]
            logits_BC, _ = self.pool(*pad_units(self.features_ND, [images_of_units[u] for u in units_B]))
            loss = F.cross_entropy(
                logits_BC,
                self.labels_U[units_B],
                self.weights_C,
                label_smoothing=self.smoothing,
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()


class _ValScores:
    """`Objective.validation` of the units of val, which are made once for all epochs."""

    def __init__(self, val: SplitPart, features_ND: Features | None, unit: str) -> None:
        self._features_ND = features_ND
        if features_ND is not None:
            self._index, self._units = val.index(unit), part_of_units(val, unit)

    def __call__(self, pool: AttentionPool, objective: ClassObjective) -> dict[str, Any]:
        if self._features_ND is None:
            return dict(NO_VALIDATION)
        pooled_UC, _ = attend(pool, self._features_ND, self._index)
        return objective.validation(self._units, pooled_UC)


def linear_classifier(model: Any) -> nn.Module | None:
    """The last layer where it is one linear layer; a distilled DeiT has two."""
    classifier = model.get_classifier()
    return classifier if isinstance(classifier, nn.Linear) else None
