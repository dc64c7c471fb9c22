"""Pools the probabilities of a unit's images: the mean of their logits.

The probabilities of an image are the softmax of its logits. So the mean of the logarithms of probabilities is
the mean of the logits, up to a constant that the softmax removes.

Shapes: N images, U units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats
from retfound_dist.listing.unit_names import IMAGE, UnitIndex

LEAST = 10.0**-DIGITS
"""A probability below this counts as this: it is 0 in the CSV, and 0 has no logarithm."""


@dataclass(frozen=True)
class SliceScores:
    """What the network says of each image of the test part, where larger units are scored."""

    probabilities_NC: Floats
    weights_N: Floats | None = None
    """The attention of each image within its unit. They sum to 1. None: all count alike."""


def mean_of_logits(probabilities_NC: Floats, index: UnitIndex) -> Floats:
    """(U, C): the softmax of the mean logits of each unit's images; images unchanged.

    Probabilities are rounded first, so that slice_predictions.csv gives the same result again.
    """
    if index.unit == IMAGE:
        return probabilities_NC
    log_NC = np.log(np.maximum(probabilities_NC.round(DIGITS), LEAST))
    # reduceat would need sorted images, so each unit's rows are added up.
    sums_UC = np.zeros((len(index), log_NC.shape[1]))
    np.add.at(sums_UC, index.unit_of_image_N, log_NC)
    counts_U1 = np.bincount(index.unit_of_image_N, minlength=len(index))[:, None]
    pooled_UC: Floats = softmax(sums_UC / counts_U1, axis=1)
    return pooled_UC


def pool_parts(probabilities_NC: Floats, data: LabelledSet, names: Sequence[str]) -> Floats:
    """(U, C): the mean of logits of the units of these parts, one part after the other."""
    pooled, start = [], 0
    for part in (data.parts[name] for name in names):
        rows_NC = probabilities_NC[start : start + len(part)]
        pooled.append(mean_of_logits(rows_NC, part.index(data.unit)))
        start += len(part)
    return np.concatenate(pooled)


def deciding_images(slices: SliceScores, pooled_UC: Floats, index: UnitIndex) -> NDArray[np.int64]:
    """(U,): the place of the image that decided each unit.

    With attention the image with the largest weight, else the one that is surest of the predicted class.
    """
    predicted_N = pooled_UC.argmax(1)[index.unit_of_image_N]
    rows_N = np.arange(len(predicted_N))
    strength_N = (
        slices.probabilities_NC[rows_N, predicted_N] if slices.weights_N is None else slices.weights_N
    )
    return np.array([places[strength_N[places].argmax()] for places in index.images_of_units], dtype=np.int64)


def mean_slices(of_seeds: Sequence[SliceScores]) -> SliceScores | None:
    """The means over seeds; None without any."""
    if not of_seeds:
        return None
    probabilities_NC: Floats = np.mean([one.probabilities_NC for one in of_seeds], axis=0)
    weights = [one.weights_N for one in of_seeds if one.weights_N is not None]
    return SliceScores(probabilities_NC, np.mean(weights, axis=0) if weights else None)
