"""The images of a test with everything that its intervals need: one argument instead of six.

Shapes: S seeds, N images, C classes of the network, M scored classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats, Labels
from retfound_dist.evaluate.scores.ranking_sums import Weights
from retfound_dist.evaluate.scores.temperature import scale_by_temperature
from retfound_dist.listing.unit_names import IMAGE


def rounded_mean(probabilities_SNC: Floats) -> Floats:
    """(N, C): the mean over seeds, rounded as in predictions.csv."""
    return bootstrap.mean_probabilities(probabilities_SNC).round(DIGITS)


@dataclass(frozen=True)
class ScoredImages:
    """Images with known classes, the probabilities of every seed, and the bootstrap's resamples of the
    images."""

    classes: tuple[str, ...]
    """The M classes that are scored."""
    labels_N: Labels
    """Indices into `classes`."""
    probabilities_SNC: Floats
    weights_RN: Weights
    """How often each image is in each resample (`bootstrap.resample`)."""
    units_N: NDArray[np.int64]
    """The patient (volume, image) of each image, by number (`bootstrap.resampling_units`)."""
    temperature: float = 1.0
    """Fitted on val (`scores.temperature`)."""
    combine: Callable[[Floats], Floats] = rounded_mean
    """From some seeds' probabilities (S, N, C) to those that are scored (N, M), rounded."""
    unit: str = IMAGE
    """What "an image" is here: an image, a volume, an eye or a patient (`data.unit`)."""

    @property
    def resamples(self) -> int:
        """Number of resamples."""
        return len(self.weights_RN)

    @cached_property
    def raw_NM(self) -> Floats:
        """(N, M): the mean probabilities of all seeds, as in predictions.csv."""
        return self.combine(self.probabilities_SNC)

    @cached_property
    def calibrated_NM(self) -> Floats:
        """(N, M): the mean probabilities of all seeds at the fitted temperature, as `predict` gives them."""
        return self.at_temperature(self.raw_NM)

    def at_temperature(self, probabilities_NM: Floats) -> Floats:
        """(N, M): probabilities at the fitted temperature, rounded."""
        return scale_by_temperature(probabilities_NM, self.temperature).round(DIGITS)

    def units_among(self, chosen_N: NDArray[np.bool_]) -> int:
        """Number of patients (volumes, images) of some of the images."""
        return len(np.unique(self.units_N[chosen_N]))
