"""Temperature scaling: one number that makes probabilities fit the share of correct predictions.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks". Their logits are here the logarithms of
the mean of the seeds' probabilities, which a softmax turns into the same probabilities again.

Shapes: N images, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.runtime.humanize import plural

MIN_IMAGES = 10
"""Fewest val images that a temperature is fitted on: with fewer it would be chance."""
_RANGE = (np.log(0.05), np.log(20.0))
"""Logarithms of the lowest and highest temperature that is tried."""


def fit_temperature(
    labels_N: Labels | None, probabilities_NC: Floats | None, unit: str = IMAGE
) -> dict[str, Any]:
    """The temperature with the lowest log loss: `value`, `images`, and why there was no fit (`reason`).

    `unit`: what is scored, and counted in `images`.
    """
    if labels_N is None or probabilities_NC is None or not len(labels_N):
        return {"value": 1.0, "images": 0, "reason": "there is no val part"}
    images = len(labels_N)
    if images < MIN_IMAGES:
        return {"value": 1.0, "images": images, "reason": f"val has only {plural(images, unit)}"}
    if (probabilities_NC.argmax(1) == labels_N).all():
        # Every lower temperature would have a lower loss: val says nothing of how sure is sure enough.
        return {"value": 1.0, "images": images, "reason": f"all val {unit}s are predicted correctly"}
    rows_N = np.arange(images)

    def log_loss(log_temperature: float) -> float:
        logits_NC = _log(probabilities_NC) / np.exp(log_temperature)
        highest_N1 = logits_NC.max(1, keepdims=True)
        log_sum_N = np.log(np.exp(logits_NC - highest_N1).sum(1)) + highest_N1[:, 0]
        return float(np.mean(log_sum_N - logits_NC[rows_N, labels_N]))

    fitted = minimize_scalar(log_loss, bounds=_RANGE, method="bounded")
    return {"value": round(float(np.exp(fitted.x)), 6), "images": images, "reason": None}


def scale_by_temperature(probabilities_NC: Floats, temperature: float) -> Floats:
    """(N, C): the probabilities at a temperature; at 1 they stay as they are."""
    if temperature == 1:
        return probabilities_NC
    logits_NC = _log(probabilities_NC) / temperature
    powers_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    scaled_NC: Floats = powers_NC / powers_NC.sum(1, keepdims=True)
    return scaled_NC


def _log(probabilities_NC: Floats) -> Floats:
    # A softmax in fp32 gives exactly 0 to very unlikely classes.
    logits_NC: Floats = np.log(np.maximum(probabilities_NC, 1e-12))
    return logits_NC
