"""From the outputs of a network to predictions: probabilities of labels, a number, probabilities of grades.

Shapes: B batch, S seeds, N images, P predictions of an image, T labels, K grades.
"""

from __future__ import annotations

from itertools import accumulate
from operator import mul

import numpy as np
import torch
from torch import Tensor

from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats, Labels
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, REGRESSION, TaskFacts


def task_predictions(facts: TaskFacts, outputs: Tensor) -> Tensor:
    """The predictions of a batch, (B, T): probabilities of labels, or the number; (B, K): of grades."""
    if facts.kind == MULTILABEL:
        return outputs.sigmoid()
    if facts.kind == REGRESSION:
        return outputs * facts.std + facts.mean
    return grade_probabilities(outputs)


def grade_probabilities(logits_BK: Tensor) -> Tensor:
    """(B, K) probabilities of grades, which sum to 1, from the K - 1 logits of `ordinal_loss`.

    P(grade > k) is the product of the conditional probabilities up to k.
    """
    # Not `cumprod`, which ONNX graphs cannot hold.
    above_BK = torch.stack([*accumulate(logits_BK.sigmoid().unbind(1), mul)], 1)
    one, zero = torch.ones_like(above_BK[:, :1]), torch.zeros_like(above_BK[:, :1])
    return torch.cat([one, above_BK], 1) - torch.cat([above_BK, zero], 1)


def mean_predictions(predictions_SNP: Floats) -> Floats:
    """(N, P): the mean over seeds, rounded as in the files, so that they give the same scores again."""
    return bootstrap.mean_probabilities(predictions_SNP).round(DIGITS)


def predicted_grades(probabilities_NK: Floats) -> Labels:
    """(N,) the median grade: the number of steps k with P(grade > k) above one half, as in CORN."""
    above_NK = 1 - np.cumsum(probabilities_NK, axis=1)[:, :-1]
    grades_N: Labels = (above_NK > 0.5).sum(1).astype(np.int64)
    return grades_N


def expected_grades(probabilities_NK: Floats) -> Floats:
    """(N,) the mean grade, counted from 0."""
    grades_N: Floats = probabilities_NK @ np.arange(probabilities_NK.shape[1])
    return grades_N
