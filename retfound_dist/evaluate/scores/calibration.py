"""Calibration: a classifier's confidence beside its accuracy, in the bins of the calibration error.

Shapes: N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from retfound_dist.evaluate.scores.metrics import ECE_BINS, Floats, Labels, confidence_bins


@dataclass(frozen=True)
class Bin:
    """Images whose confidence falls into one of the equal bins of the calibration error."""

    index: int
    """From 0; the bin holds confidences above index / ECE_BINS, up to (index + 1) / ECE_BINS."""
    images: int
    confidence: float
    """Mean confidence."""
    accuracy: float
    """Share of images with a correct prediction."""
    interval: tuple[float, float]
    """95 % interval of the accuracy (Wilson), as if images were independent."""


def calibration_bins(labels_N: Labels, probabilities_NC: Floats) -> list[Bin]:
    """The bins that contain an image, in rising order."""
    confidence_N = probabilities_NC.max(1)
    correct_N = probabilities_NC.argmax(1) == labels_N
    index_N = confidence_bins(confidence_N)
    filled_bins = []
    for index in range(ECE_BINS):
        in_bin_N = index_N == index
        images, correct = int(in_bin_N.sum()), int(correct_N[in_bin_N].sum())
        if images:
            # Wilson, because in bins with few images all are often correct. The usual interval would then
            # have no width.
            low, high = binomtest(correct, images).proportion_ci(method="wilson")
            mean = float(np.mean(confidence_N[in_bin_N]))
            filled_bins.append(Bin(index, images, mean, correct / images, (float(low), float(high))))
    return filled_bins
