"""The Brier score and its decomposition, before and after temperature scaling.

The score of one class against the rest is the mean of (p - y)^2; y is 1 for images of the class. The score
over all classes is the sum of the classes' scores (Brier, Monthly Weather Review 78, 1950): from 0 to 2,
and twice that of one class where there are two.

Murphy, Journal of Applied Meteorology 12 (1973), splits it by bins of the probability: score = reliability
- resolution + uncertainty. With bins there is a remainder, for probabilities in a bin differ (Stephenson,
Coelho and Jolliffe, Weather and Forecasting 23, 2008). It is `within_bins` here, so that the four terms
give the score exactly. The bins are the equal ones of the calibration error.

Shapes: N images, M classes, R resamples, B numbers of each image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import (
    ECE_BINS,
    Floats,
    Labels,
    calibration_error,
    calibration_gaps,
    confidence_bins,
)

TERMS = ("reliability", "resolution", "uncertainty", "within_bins")


def brier_terms(truth_N: NDArray[np.bool_], probability_N: Floats) -> dict[str, float]:
    """`score` of one class, and the `TERMS` with score = reliability - resolution + uncertainty +
    within_bins."""
    images = len(truth_N)
    bin_N = confidence_bins(probability_N)
    count_B = np.bincount(bin_N, minlength=ECE_BINS)
    filled = count_B > 0
    mean_B, share_B = (
        np.bincount(bin_N, values, minlength=ECE_BINS)[filled] / count_B[filled]
        for values in (probability_N, truth_N.astype(float))
    )
    weight_B, share = count_B[filled] / images, float(truth_N.mean())
    score = float(np.mean((probability_N - truth_N) ** 2))
    reliability = float(weight_B @ (mean_B - share_B) ** 2)
    resolution = float(weight_B @ (share_B - share) ** 2)
    uncertainty = share * (1 - share)
    remainder = score - (reliability - resolution + uncertainty)
    terms = dict(zip(TERMS, (reliability, resolution, uncertainty, remainder), strict=True))
    return {"score": score, **terms}


def sum_terms(labels_N: Labels, probabilities_NM: Floats) -> dict[str, Any]:
    """The score over all classes and its terms: sums of those of the classes, which are in `per_class` (a
    list)."""
    classes = probabilities_NM.shape[1]
    per_class = [brier_terms(labels_N == c, probabilities_NM[:, c]) for c in range(classes)]
    return {name: sum(terms[name] for terms in per_class) for name in per_class[0]} | {"per_class": per_class}


def calibration_entries(images: ScoredImages) -> dict[str, Any]:
    """`uncalibrated`, `calibrated` and the `change` between them, with intervals, for metrics.json."""
    raw_NM, calibrated_NM = images.raw_NM, images.calibrated_NM
    before_RB, after_RB = _resampled(images)
    entries: dict[str, Any] = {
        "bins": ECE_BINS,
        "uncalibrated": _entry(images, raw_NM, before_RB),
        "calibrated": _entry(images, calibrated_NM, after_RB),
    }
    entries["change"] = {
        name: {
            "value": entries["calibrated"][name]["value"] - entries["uncalibrated"][name]["value"],
            **bootstrap.paired_difference(after_RB[:, column], before_RB[:, column]),
        }
        for name, column in (("brier", -2), ("ece", -1))
    }
    return entries


def _entry(images: ScoredImages, probabilities_NM: Floats, resampled_RB: Floats) -> dict[str, Any]:
    """Scores of probabilities; `resampled_RB`: the Brier score of each class, their sum, the calibration
    error."""
    terms = sum_terms(images.labels_N, probabilities_NM)
    per_class = zip(images.classes, terms.pop("per_class"), resampled_RB.T, strict=False)
    return {
        "brier": {
            "value": terms.pop("score"),
            "ci95": bootstrap.interval(resampled_RB[:, -2]),
            **terms,
            "per_class": {
                name: {"value": own.pop("score"), "ci95": bootstrap.interval(values_R), **own}
                for name, own, values_R in per_class
            },
        },
        "ece": {
            "value": calibration_error(images.labels_N, probabilities_NM),
            "ci95": bootstrap.interval(resampled_RB[:, -1]),
        },
    }


def _resampled(images: ScoredImages) -> tuple[Floats, Floats]:
    """Before and after scaling: the Brier score of each class, their sum and the calibration error (R, M +
    2)."""
    classes = len(images.classes)
    before_RB, after_RB = (np.empty((images.resamples, classes + 2)) for _ in range(2))
    for draw_S, drawn_R in bootstrap.distinct_seed_draws(len(images.probabilities_SNC), images.resamples):
        raw_NM = images.combine(images.probabilities_SNC[draw_S])
        scaled_NM = images.at_temperature(raw_NM)
        for probabilities_NM, into_RB in ((raw_NM, before_RB), (scaled_NM, after_RB)):
            numbers_NB = _numbers(images.labels_N, probabilities_NM)
            for rows in bootstrap.chunks(len(drawn_R), len(images.labels_N)):
                weights_RN = images.weights_RN[drawn_R[rows]]
                # All are linear in the weights, so one product gives them for all resamples.
                means_RB = weights_RN.astype(np.float64) @ numbers_NB / weights_RN.sum(1)[:, None]
                into_RB[drawn_R[rows], :classes] = means_RB[:, :classes]
                into_RB[drawn_R[rows], -2] = means_RB[:, :classes].sum(1)
                into_RB[drawn_R[rows], -1] = np.abs(means_RB[:, classes:]).sum(1)
    return before_RB, after_RB


def _numbers(labels_N: Labels, probabilities_NM: Floats) -> Floats:
    """(N, M + bins): the squared error of each class, and the calibration gap in each bin."""
    errors_NM = probabilities_NM.copy()
    errors_NM[np.arange(len(labels_N)), labels_N] -= 1
    return np.column_stack([errors_NM**2, calibration_gaps(labels_N, probabilities_NM)])
