"""Decision thresholds, chosen on val, and what they achieve on test.

A threshold for a specificity of 95 % is the one with the highest sensitivity among those with a specificity
of at least 95 % on val. Candidates are the probabilities of the val images; an image is positive where its
probability is at least the threshold. For a fixed sensitivity the two change places. The same threshold is
then applied to test, where the specificity may be another one.

Shapes: N images, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.runtime.humanize import plural

SPECIFICITY, SENSITIVITY = "specificity", "sensitivity"
MIN_IMAGES = 10
"""Fewest val images that a rate is fixed on: 1 of 10 is the coarsest step that can hold a rate of 90 %."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Target:
    """A rate that a threshold has to reach on val."""

    kind: str
    """`specificity` or `sensitivity`."""
    level: float

    @property
    def name(self) -> str:
        """`specificity 0.95`."""
        return f"{self.kind} {self.level:g}"


@dataclass(frozen=True)
class Threshold:
    """A threshold that was chosen on val."""

    target: Target
    value: float | None
    """None: it could not be chosen."""
    reason: str | None
    """Why there is none."""
    val: dict[str, Any]
    """`positives` and `negatives` of val, and the `sensitivity` and `specificity` that the threshold has
    there."""

    def to_json(self) -> dict[str, Any]:
        """For metrics.json and classifier.json."""
        return {
            "target": {"rate": self.target.kind, "level": self.target.level},
            "threshold": self.value,
            "reason": self.reason,
            "val": self.val,
        }


def list_targets(settings: Clinical) -> list[Target]:
    """The targets of `clinical.specificities` and `clinical.sensitivities`."""
    return [
        *(Target(SPECIFICITY, level) for level in settings.specificities),
        *(Target(SENSITIVITY, level) for level in settings.sensitivities),
    ]


def choose_threshold(
    truth_N: NDArray[np.bool_] | None,
    score_N: Floats | None,
    target: Target,
    name: str,
    unit: str = IMAGE,
) -> Threshold:
    """The threshold for a target, by the val images; without a value where val is missing or too small.

    `name`: the question, for reasons. `unit`: what is scored.
    """
    if truth_N is None or score_N is None:
        return Threshold(target, None, "there is no val part", {"positives": 0, "negatives": 0})
    positives, negatives = int(truth_N.sum()), int((~truth_N).sum())
    counts = {"positives": positives, "negatives": negatives}
    if reason := _too_few(positives, negatives, target, name, unit):
        return Threshold(target, None, reason, counts)
    false_T, true_T, thresholds_T = roc_curve(truth_N, score_N, drop_intermediate=False)
    # The first threshold is infinite: at it no image is positive.
    fixed_T, free_T = (1 - false_T, true_T)[:: 1 if target.kind == SPECIFICITY else -1]
    reaching = np.flatnonzero((fixed_T >= target.level - _ROUNDING) & np.isfinite(thresholds_T))
    if not len(reaching):
        reason = (
            f"on val the {unit} with the highest probability of {name} is not one, whatever the threshold"
        )
        return Threshold(target, None, reason, counts)
    # Of thresholds with the same free rate, the one with the highest fixed rate.
    best = max(reaching, key=lambda place: (free_T[place], fixed_T[place]))
    rates = {"sensitivity": float(true_T[best]), "specificity": float(1 - false_T[best])}
    return Threshold(target, float(thresholds_T[best]), None, {**counts, **rates})


def _too_few(positives: int, negatives: int, target: Target, name: str, unit: str) -> str | None:
    """Why a rate cannot be fixed on so few val images; None where it can."""
    # Of an external set only val images of its classes count.
    if not positives and not negatives:
        return f"val has no {unit} of the classes that are tested"
    if not positives or not negatives:
        return f"val has no {unit} {'of' if not positives else 'without'} {name}"
    images, of = (negatives, "without") if target.kind == SPECIFICITY else (positives, "of")
    if images < MIN_IMAGES:
        return f"val has only {plural(images, unit)} {of} {name}, fewer than {MIN_IMAGES}"
    return None
