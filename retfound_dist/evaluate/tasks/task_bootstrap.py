"""Intervals of the scores of a task: the resamples of `scores/bootstrap.py`, over patients and seeds.

Shapes: S seeds, N images, T targets, P predictions of an image, R resamples.
"""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.scores.bootstrap import (
    Interval,
    ProgressCallback,
    distinct_seed_draws,
    interval,
    mean_probabilities,
)
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.ranking_sums import Weights
from retfound_dist.evaluate.tasks.task_facts import SCORES, TaskFacts
from retfound_dist.evaluate.tasks.task_scores import WeightedScores, weighted_scores

_CHUNK = 4_000_000
"""Weights scored at a time."""


def resampled_scores(
    facts: TaskFacts,
    targets_NT: Floats,
    predictions_SNP: Floats,
    weights_RN: Weights,
    on_progress: ProgressCallback | None = None,
) -> WeightedScores:
    """The scores of the mean prediction of the drawn seeds, in each resample (R,)."""
    resamples, done = len(weights_RN), 0
    rows = max(1, _CHUNK // max(1, len(targets_NT)))
    scored = {name: np.empty(resamples) for name in SCORES[facts.kind]}
    for draw_S, with_draw_R in distinct_seed_draws(len(predictions_SNP), resamples):
        predictions_NP = mean_probabilities(predictions_SNP[draw_S])
        for start in range(0, len(with_draw_R), rows):
            chosen_R = with_draw_R[start : start + rows]
            part = weighted_scores(facts, targets_NT, predictions_NP, weights_RN[chosen_R])
            for name, values_R in scored.items():
                values_R[chosen_R] = part[name]
            done += len(chosen_R)
            if on_progress:
                on_progress(done, resamples)
    return scored


def score_intervals(scored: WeightedScores) -> dict[str, Interval]:
    """The 95 % interval of each score."""
    return {name: interval(values_R) for name, values_R in scored.items()}
