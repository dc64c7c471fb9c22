"""A kept classifier's predictions of volumes, eyes or patients.

    probabilities_SUC, slices = unit_probabilities(classifier, images, index)

Shapes: S seeds, N images, U units, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
from torch import Tensor, nn

from retfound_dist.evaluate.classifier.classifier import Classifier, seed_probabilities, uses_bf16_here
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.finetune.unit_predictions import head_inputs, linear_classifier
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.units.attention_pool import AttentionPool, Features, attend
from retfound_dist.evaluate.units.slice_pooling import SliceScores, mean_of_logits, mean_slices
from retfound_dist.listing.unit_names import IMAGE, UnitIndex


def unit_note(facts: ClassifierFile, unit: str) -> str:
    """A sentence where probabilities of `unit` are not those that the evaluation scored; else empty."""
    if (scored := facts.unit["kind"]) == unit:
        return ""
    return (
        f"the classifier was scored by {scored}, and its temperature was fitted there: probabilities by "
        f"{unit} may be too low or too high"
    )


def unit_probabilities(
    classifier: Classifier, images: Sequence[Pixels], index: UnitIndex
) -> tuple[Floats, SliceScores | None]:
    """(S, U, C) as the evaluation predicted its test part: not calibrated, rounded; and the scores of images.

    None, and the images' own probabilities, where `index` is of images.
    """
    if index.unit == IMAGE or not len(classifier.pools):
        image_SNC, features_SND = seed_probabilities(classifier, images), None
    else:
        image_SNC, features_SND = probabilities_and_features(classifier, images)
    if index.unit == IMAGE:
        return image_SNC, None
    return pool_seeds(list(classifier.pools), image_SNC, features_SND, index, classifier.facts.digits)


def pool_seeds(
    pools: Sequence[nn.Module],
    image_SNC: Floats,
    features_SND: Features | None,
    index: UnitIndex,
    digits: int,
) -> tuple[Floats, SliceScores | None]:
    """(S, U, C) rounded to `digits`, from the probabilities of images; and the scores of images.

    `pools`: the attention head of each seed, which takes features. Without any: the mean of logits.
    """
    of_seeds, pooled = [], []
    for seed, probabilities_NC in enumerate(image_SNC):
        if not pools:
            pooled.append(mean_of_logits(probabilities_NC, index))
            of_seeds.append(SliceScores(probabilities_NC))
            continue
        pool = pools[seed]
        assert isinstance(pool, AttentionPool)
        assert features_SND is not None
        pooled_UC, weights_N = attend(pool, features_SND[seed], index)
        pooled.append(pooled_UC)
        of_seeds.append(SliceScores(probabilities_NC, weights_N))
    return np.stack(pooled).round(digits), mean_slices(of_seeds)


def probabilities_and_features(classifier: Classifier, images: Sequence[Pixels]) -> tuple[Floats, Features]:
    """(S, N, C) as `seed_probabilities`, and (S, N, D): what the attention head of each seed takes.

    In one pass: the features are the inputs of the last layer.
    """
    heads = [head for model in classifier.models if (head := linear_classifier(model))]
    if len(heads) < len(classifier.models):
        return seed_probabilities(classifier, images), _features_alone(classifier, images)
    rows_of_seeds: list[list[Features]] = [[] for _ in heads]
    with ExitStack() as hooks:
        for head, rows in zip(heads, rows_of_seeds, strict=True):
            hooks.callback(head.register_forward_pre_hook(partial(_record_inputs, rows)).remove)
        image_SNC = seed_probabilities(classifier, images)
    # The last batch was filled up with black images.
    return image_SNC, np.stack([np.concatenate(rows)[: len(images)] for rows in rows_of_seeds])


def _record_inputs(rows: list[Features], layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A hook that copies what a layer is given."""
    rows.append(inputs[0].flatten(1).float().cpu().numpy())


def _features_alone(classifier: Classifier, images: Sequence[Pixels]) -> Features:
    """(S, N, D), in a pass of their own."""
    batch, bf16 = classifier.facts.batch, uses_bf16_here(classifier)
    return np.stack(
        [
            head_inputs(model, classifier.backbone, images, batch=batch, bf16=bf16)
            for model in classifier.models
        ]
    )
