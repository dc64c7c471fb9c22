"""The scores of tasks other than classes, for one or many weightings of the images.

A weighting counts each image as often as a resample has drawn it (`scores/bootstrap.py`). Weights of 1 give
the score of the test part. A score that is not defined is NaN.

Shapes: N images, R weightings, T labels, K grades, P predictions of an image.
"""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.scores.bootstrap import weighted_ranking
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.scores.ranking_sums import Weights
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, REGRESSION, TaskFacts
from retfound_dist.evaluate.tasks.task_outputs import predicted_grades

WeightedScores = dict[str, Floats]
"""Score -> its value for each weighting (R,)."""
_MIN_PROBABILITY = 1e-12
# 32 MB in float64.
_BLOCK = 4_000_000
"""Pairs of images that are compared at a time."""


def weighted_scores(
    facts: TaskFacts, targets_NT: Floats, predictions_NP: Floats, weights_RN: Weights
) -> WeightedScores:
    """All scores of the task's kind, in the order of `task_facts.SCORES`."""
    if facts.kind == MULTILABEL:
        of_labels = [
            label_scores(targets_NT[:, t], predictions_NP[:, t], weights_RN)
            for t in range(len(facts.targets))
        ]
        return {name: np.mean([scores[name] for scores in of_labels], axis=0) for name in of_labels[0]}
    if facts.kind == REGRESSION:
        return number_scores(targets_NT[:, 0], predictions_NP[:, 0], weights_RN)
    return grade_scores(
        targets_NT[:, 0].astype(np.int64), predicted_grades(predictions_NP), len(facts.grades), weights_RN
    )


def score_once(facts: TaskFacts, targets_NT: Floats, predictions_NP: Floats) -> dict[str, float | None]:
    """The scores of the images, each counted once; None where one is not defined."""
    once = np.ones((1, len(targets_NT)), dtype=np.int64)
    scored = weighted_scores(facts, targets_NT, predictions_NP, once)
    return {name: finite_or_none(values_R[0]) for name, values_R in scored.items()}


def finite_or_none(value: float) -> float | None:
    """The value, or None where it is not a number: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def label_scores(truth_N: Floats, probability_N: Floats, weights_RN: Weights) -> WeightedScores:
    """AUROC, average precision and log loss of one label, over the images whose answer is known."""
    known_N = np.isfinite(truth_N)
    has_label_N, probability_N, weights_RN = (
        truth_N[known_N] == 1,
        probability_N[known_N],
        weights_RN[:, known_N],
    )
    auroc_R, aupr_R = weighted_ranking(has_label_N, probability_N, weights_RN)
    of_truth_N = np.where(has_label_N, probability_N, 1 - probability_N).clip(_MIN_PROBABILITY)
    return {"auroc": auroc_R, "aupr": aupr_R, "log_loss": _mean(-np.log(of_truth_N), weights_RN)}


def number_scores(truth_N: Floats, predicted_N: Floats, weights_RN: Weights) -> WeightedScores:
    """MAE, RMSE, R² (1 - squared error / variance) and concordance of a number."""
    error_N = predicted_N - truth_N
    squared_R = _mean(error_N**2, weights_RN)
    # Centred before squaring: the variance of large numbers would lose digits otherwise.
    centred_N = truth_N - truth_N.mean()
    variance_R = _mean(centred_N**2, weights_RN) - _mean(centred_N, weights_RN) ** 2
    tiny = 1e-12 * float(np.mean(centred_N**2))
    return {
        "mae": _mean(np.abs(error_N), weights_RN),
        "rmse": np.sqrt(squared_R),
        "r2": 1 - _ratio(squared_R, np.where(variance_R > tiny, variance_R, 0.0)),
        "concordance": concordance(truth_N, predicted_N, weights_RN),
    }


def concordance(truth_N: Floats, predicted_N: Floats, weights_RN: Weights) -> Floats:
    """Harrell's concordance index (JAMA 247, 1982) without censoring, (R,).

    The share of pairs of images with different numbers whose predictions are in the same order. Equal
    predictions count half. 0.5: guessing.
    """
    weights = weights_RN.astype(np.float64)
    concordant_R, pairs_R = np.zeros(len(weights)), np.zeros(len(weights))
    rows = max(1, _BLOCK // max(1, len(truth_N)))
    for start in range(0, len(truth_N), rows):
        block = slice(start, start + rows)
        # Each pair once: the image of the block has the larger number.
        larger_bN = truth_N[block, None] > truth_N[None]
        difference_bN = predicted_N[block, None] - predicted_N[None]
        ordered_bN = larger_bN * ((difference_bN > 0) + 0.5 * (difference_bN == 0))
        concordant_R += (weights[:, block] * (weights @ ordered_bN.T)).sum(1)
        pairs_R += (weights[:, block] * (weights @ larger_bN.T.astype(np.float64))).sum(1)
    return _ratio(concordant_R, pairs_R)


def grade_scores(truth_N: Labels, predicted_N: Labels, grades: int, weights_RN: Weights) -> WeightedScores:
    """Quadratic kappa, accuracy, and the mean distance in grades."""
    cells_NX = np.zeros((len(truth_N), grades * grades))
    cells_NX[np.arange(len(truth_N)), truth_N * grades + predicted_N] = 1
    confusion_RKK = (weights_RN.astype(np.float64) @ cells_NX).reshape(-1, grades, grades)
    images_R = confusion_RKK.sum((1, 2))
    step_KK = np.abs(np.subtract.outer(np.arange(grades), np.arange(grades))).astype(np.float64)
    by_chance_RKK = confusion_RKK.sum(2)[:, :, None] * confusion_RKK.sum(1)[:, None, :]
    observed_R = (step_KK**2 * confusion_RKK).sum((1, 2))
    chance_R = _ratio((step_KK**2 * by_chance_RKK).sum((1, 2)), images_R)
    return {
        # Cohen's weighted kappa (Psychological Bulletin 70, 1968), weights (i - j)².
        "quadratic_kappa": 1 - _ratio(observed_R, chance_R),
        "accuracy": _ratio(np.trace(confusion_RKK, axis1=1, axis2=2), images_R),
        "mae_grades": _ratio((step_KK * confusion_RKK).sum((1, 2)), images_R),
    }


def _mean(values_N: Floats, weights_RN: Weights) -> Floats:
    """The weighted mean for each weighting (R,); NaN where all weights are 0."""
    return _ratio(weights_RN.astype(np.float64) @ values_N, weights_RN.sum(1).astype(np.float64))


def _ratio(above_R: Floats, below_R: Floats) -> Floats:
    """above / below, NaN where below is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below_R == 0, np.nan, above_R / below_R)
