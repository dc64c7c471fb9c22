"""Decision thresholds of labels of yes or no, chosen on val, and what they achieve.

The threshold of a label is the one with the largest sum of sensitivity and specificity on val (Youden, Cancer
3, 1950). Candidates are the probabilities of the val images; an image has the label where its probability is
at least the threshold.

Shapes: N images, T labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from retfound_dist.config.schema import LABEL_SEPARATOR, NO_LABEL
from retfound_dist.evaluate.scores.metrics import Floats

MIN_IMAGES = 10
"""Fewest val images with a label, and without it, that its threshold is chosen by."""
UNCHOSEN = 0.5
"""The threshold of a label that val has too few images of."""


def choose_thresholds(
    labels: Sequence[str], truth_NT: Floats | None, predictions_NT: Floats | None
) -> dict[str, dict[str, Any]]:
    """`thresholds` of metrics.json and classifier.json: label -> `threshold`, `reason` and `val`.

    `truth_NT`: 0, 1 or NaN, of the val images; None without a val part. `reason`: why the threshold is
    `UNCHOSEN`; None where it was chosen.
    """
    if truth_NT is None or predictions_NT is None:
        return {name: _unchosen("there is no val part", 0, 0) for name in labels}
    return {
        name: _choose(name, truth_NT[:, place], predictions_NT[:, place]) for place, name in enumerate(labels)
    }


def _choose(name: str, truth_N: Floats, probability_N: Floats) -> dict[str, Any]:
    """The threshold of one label with the highest sensitivity + specificity on val (Youden's index).

    `truth_N`: 1, 0, or NaN where the label is not known. No threshold, but a reason, where val has too few
    images with or without the label.
    """
    known_N = np.isfinite(truth_N)
    has_label_N, probability_N = truth_N[known_N] == 1, probability_N[known_N]
    positives, negatives = int(has_label_N.sum()), int((~has_label_N).sum())
    for count, of in ((positives, "with"), (negatives, "without")):
        if count < MIN_IMAGES:
            reason = f"val has {count} images {of} {name}, fewer than {MIN_IMAGES}"
            return _unchosen(reason, positives, negatives)
    false_X, true_X, thresholds_X = roc_curve(has_label_N, probability_N, drop_intermediate=False)
    # The first one is infinite: at it no image has the label. Of equal sums the highest threshold.
    value = float(thresholds_X[1 + int(np.argmax(true_X[1:] - false_X[1:]))])
    val = {
        "positives": positives,
        "negatives": negatives,
        **threshold_rates(truth_N[known_N], probability_N, value),
    }
    return {"threshold": value, "reason": None, "val": val}


def _unchosen(reason: str, positives: int, negatives: int) -> dict[str, Any]:
    return {
        "threshold": UNCHOSEN,
        "reason": reason,
        "val": {"positives": positives, "negatives": negatives},
    }


def threshold_rates(truth_N: Floats, probability_N: Floats, threshold: float) -> dict[str, float | None]:
    """`sensitivity` and `specificity` over the known answers; None without an image that it is of."""
    called_N = probability_N >= threshold
    rates = {"sensitivity": called_N[truth_N == 1], "specificity": ~called_N[truth_N == 0]}
    return {name: float(right.mean()) if len(right) else None for name, right in rates.items()}


def threshold_values(labels: Sequence[str], stored: Mapping[str, Any]) -> Floats:
    """(T,): the thresholds of these labels; `UNCHOSEN` where none is stored, as by earlier versions.

    KeyError, TypeError or ValueError where `stored` is damaged.
    """
    return np.array([float(stored[name]["threshold"]) if name in stored else UNCHOSEN for name in labels])


def threshold_notes(labels: Sequence[str], stored: Mapping[str, Any]) -> list[str]:
    """A sentence on each label whose threshold was not chosen on val."""
    reasons = {
        name: stored[name].get("reason") if name in stored else "the classifier has none" for name in labels
    }
    return [f"the threshold of {name} is {UNCHOSEN}: {reason}" for name, reason in reasons.items() if reason]


def joined_labels(labels: Sequence[str], thresholds_T: Floats, predictions_NT: Floats) -> list[str]:
    """(N,): the labels that are predicted for each image, joined by `;`; `none` where there is none."""
    has_label_NT = predictions_NT >= thresholds_T
    return [
        LABEL_SEPARATOR.join(name for name, has in zip(labels, row_T, strict=True) if has) or NO_LABEL
        for row_T in has_label_NT
    ]
