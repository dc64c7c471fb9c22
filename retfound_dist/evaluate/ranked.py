"""ROC and precision-recall curves, of each class and as the mean over classes with its interval.

Shapes: N images, C classes, R resamples, G points of a grid, K distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from retfound_dist.evaluate import bootstrap
from retfound_dist.evaluate.figures import Line, classed
from retfound_dist.evaluate.metrics import Floats, Labels
from retfound_dist.evaluate.results import Evaluation

GRID = np.linspace(0, 1, 101)
RESAMPLES = 200
"""For bands, which want less than an interval's digits."""
Curve = Callable[[NDArray[np.bool_], Floats, Floats], Floats]


def roc_lines(labels_N: Labels, probabilities_NC: Floats) -> list[Line]:
    """One-vs-rest ROC curve of each class that the images hold."""
    found = []
    for c in _held(labels_N, probabilities_NC):
        false, true, _ = roc_curve(labels_N == c, probabilities_NC[:, c])
        found.append(classed(false, true, c))
    return found


def pr_lines(labels_N: Labels, probabilities_NC: Floats) -> list[Line]:
    """One-vs-rest precision over recall of each class that the images hold, from the highest score on."""
    found = []
    for c in _held(labels_N, probabilities_NC):
        precision, recall, _ = precision_recall_curve(labels_N == c, probabilities_NC[:, c])
        found.append(classed(recall[-2::-1], precision[-2::-1], c))
    return found


def mean_roc(evaluation: Evaluation, place: int) -> Line | None:
    """The mean over classes of the one-vs-rest ROC curves, with its 95 % band; None of one class only."""
    return _mean(evaluation, _sensitivity, place)


def mean_pr(evaluation: Evaluation, place: int) -> Line | None:
    """The mean over classes of the one-vs-rest precision at each recall, with its band; None likewise."""
    return _mean(evaluation, _precision, place)


def _held(labels_N: Labels, probabilities_NC: Floats) -> list[int]:
    return [c for c in range(probabilities_NC.shape[1]) if 0 < (labels_N == c).sum() < len(labels_N)]


def _mean(evaluation: Evaluation, curve: Curve, place: int) -> Line | None:
    """Bootstrap over patients as for the scores; resamples without one of the classes are left out."""
    labels_N, p_NC = evaluation.labels_N, evaluation.probabilities_NC
    _, units_N = bootstrap.units_of(evaluation.patients, evaluation.keys, evaluation.units)
    weights_RN = np.vstack([np.ones(len(labels_N)), bootstrap.resample(units_N, RESAMPLES, 0)])
    held = _held(labels_N, p_NC)
    if not held:
        return None
    mean_RG = np.mean([curve(labels_N == c, p_NC[:, c], weights_RN) for c in held], axis=0)
    line = classed(GRID, mean_RG[0], place)
    drawn_RG = mean_RG[1:][np.isfinite(mean_RG[1:]).all(1)]
    if len(drawn_RG) < RESAMPLES / 2:
        return line
    low, high = np.quantile(drawn_RG, [0.025, 0.975], axis=0)
    return replace(line, band=(low, high))


def _sensitivity(truth_N: NDArray[np.bool_], score_N: Floats, weights_RN: Floats) -> Floats:
    """(R, G): sensitivity at each share of false alarms."""
    true_RK, false_RK = _counts(truth_N, score_N, weights_RN)
    with np.errstate(invalid="ignore"):
        true_RK, false_RK = true_RK / true_RK[:, -1:], false_RK / false_RK[:, -1:]
    start = np.zeros(1)
    rows = [
        np.interp(GRID, np.concatenate([start, x]), np.concatenate([start, y]))
        for x, y in zip(false_RK, true_RK, strict=True)
    ]
    found_RG = np.stack(rows)
    found_RG[:, 0] = 0
    return found_RG


def _precision(truth_N: NDArray[np.bool_], score_N: Floats, weights_RN: Floats) -> Floats:
    """(R, G): precision at the first score that reaches each recall."""
    true_RK, false_RK = _counts(truth_N, score_N, weights_RN)
    with np.errstate(invalid="ignore"):
        precision_RK = true_RK / (true_RK + false_RK)
        recall_RK = true_RK / true_RK[:, -1:]
    rows = []
    for recall_K, precision_K in zip(recall_RK, precision_RK, strict=True):
        counted = np.isfinite(precision_K)
        if not np.isfinite(recall_K).all() or not counted.any():
            rows.append(np.full(len(GRID), np.nan))
            continue
        at = np.searchsorted(recall_K[counted], GRID - 1e-9)
        rows.append(precision_K[counted][np.minimum(at, counted.sum() - 1)])
    return np.stack(rows)


def _counts(truth_N: NDArray[np.bool_], score_N: Floats, weights_RN: Floats) -> tuple[Floats, Floats]:
    """True and false positives (R, K) at each distinct score, falling."""
    order = np.argsort(-score_N, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score_N[order]) != 0, True))
    weights = weights_RN[:, order]
    true = np.cumsum(weights * truth_N[order], axis=1)[:, last_of_tie]
    false = np.cumsum(weights * ~truth_N[order], axis=1)[:, last_of_tie]
    return true, false
