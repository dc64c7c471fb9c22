"""Decision curves: is it better to act by the classifier than to treat everybody, or nobody?

Who treats at a threshold probability t of 10 % accepts nine unneeded treatments for one that is needed. The
net benefit counts both in needed treatments for each image: true positives / n - false positives / n x t /
(1 - t). Treating nobody has a net benefit of 0. Source: Vickers and Elkin, Medical Decision Making 26
(2006).

Shapes: T threshold probabilities, R resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats

THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))
"""Threshold probabilities of a curve."""
_DIGITS = 6


def net_benefit(true_TR: Floats, false_TR: Floats, images_R: Floats, thresholds_T: Floats) -> Floats:
    """(T, R): net benefit of counts of true and false positives; NaN for resamples without images."""
    odds_T1 = (thresholds_T / (1 - thresholds_T))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        benefit_TR: Floats = (true_TR - false_TR * odds_T1) / images_R
    return benefit_TR


def curve_entry(
    once: tuple[Floats, Floats, Floats, Floats], resampled: tuple[Floats, Floats, Floats, Floats]
) -> dict[str, Any]:
    """The curve of one question for metrics.json.

    Both arguments: true positives (T, R), false positives (T, R), positives (R,) and negatives (R,) at
    `THRESHOLDS`; R = 1 in the first one.
    """
    model_T, all_T = (benefit_T1[:, 0] for benefit_T1 in _benefits(*once))
    model_TR, all_TR = _benefits(*resampled)
    spans = [bootstrap.interval(values_R) for values_R in model_TR]
    gains = [bootstrap.interval(gain_R) for gain_R in model_TR - np.maximum(all_TR, 0)]
    useful_T = np.array([span is not None and span[0] > 0 for span in gains])
    return {
        "thresholds": list(THRESHOLDS),
        "model": model_T.round(_DIGITS).tolist(),
        "ci95": [span and [round(end, _DIGITS) for end in span] for span in spans],
        "treat_all": all_T.round(_DIGITS).tolist(),
        "treat_none": 0.0,
        "useful": _ranges(useful_T),
    }


def _benefits(
    true_TR: Floats, false_TR: Floats, positives_R: Floats, negatives_R: Floats
) -> tuple[Floats, Floats]:
    """(T, R) of the classifier, and of treating everybody."""
    thresholds_T, images_R = np.array(THRESHOLDS), positives_R + negatives_R
    shape = true_TR.shape
    everybody = np.broadcast_to(positives_R, shape), np.broadcast_to(negatives_R, shape)
    return (
        net_benefit(true_TR, false_TR, images_R, thresholds_T),
        net_benefit(*everybody, images_R, thresholds_T),
    )


def _ranges(useful_T: NDArray[np.bool_]) -> list[list[float]]:
    """First and last threshold of each run of useful ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], useful_T, [False]]).astype(int)))
    return [
        [THRESHOLDS[first], THRESHOLDS[end - 1]] for first, end in zip(edges[::2], edges[1::2], strict=True)
    ]
