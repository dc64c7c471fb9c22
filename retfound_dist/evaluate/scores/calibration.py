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

    place: int
    """From 0; the bin holds confidences above place / bins, up to (place + 1) / bins."""
    images: int
    confidence: float
    """Mean of them."""
    right: float
    """Share whose predicted class is the true one."""
    span: tuple[float, float]
    """95 % interval of that share (Wilson), as if images were independent."""


def bins(labels_N: Labels, probabilities_NC: Floats) -> list[Bin]:
    """The bins that hold an image, rising."""
    confidence_N = probabilities_NC.max(1)
    right_N = probabilities_NC.argmax(1) == labels_N
    place_N = confidence_bins(confidence_N)
    filled_bins = []
    for place in range(ECE_BINS):
        here = place_N == place
        images, right = int(here.sum()), int(right_N[here].sum())
        if images:
            # Wilson, because many bins hold few images, all of them right: the usual interval of mean and
            # deviation would have no width there.
            low, high = binomtest(right, images).proportion_ci(method="wilson")
            mean = float(np.mean(confidence_N[here]))
            filled_bins.append(Bin(place, images, mean, right / images, (float(low), float(high))))
    return filled_bins
