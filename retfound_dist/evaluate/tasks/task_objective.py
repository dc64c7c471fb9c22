"""What fine-tuning learns where the task is not one class of several: targets, loss, choice of the epoch.

It has the methods of `finetune.objectives.Objective`.

Shapes: B batch, N images, T targets, S side, P columns of the predictions (`TaskFacts.predicted_names`: a
label, the number, or a grade).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.scores.metrics import LOWER_IS_BETTER, Floats
from retfound_dist.evaluate.tasks.task_facts import (
    MULTILABEL,
    REGRESSION,
    VAL_SCORE,
    TaskFacts,
)
from retfound_dist.evaluate.tasks.task_losses import regression_loss, task_loss
from retfound_dist.evaluate.tasks.task_outputs import task_predictions
from retfound_dist.evaluate.tasks.task_scores import finite_or_none, label_scores, score_once

_MIN_PROBABILITY = 1e-12
"""Smaller probabilities count as this one in the log loss, which would be infinite at 0."""


class TaskObjective:
    """The objective of `multilabel`, `regression` and `ordinal`."""

    def __init__(self, facts: TaskFacts) -> None:
        self.facts = facts
        self.outputs = facts.outputs

    def training_targets(self, train: SplitPart) -> list[NDArray[np.float32]]:
        """The targets of each image, (T,); NaN: not known."""
        return list(targets_of(train).astype(np.float32))

    def prepare(
        self, images_B3SS: Tensor, targets_BT: Tensor, epoch: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Images and targets as they are: nothing is mixed."""
        return images_B3SS, targets_BT

    def loss(self, outputs: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return task_loss(self.facts, outputs, targets_BT)

    def predictions(self, outputs: Tensor) -> Tensor:
        """`task_outputs.task_predictions`."""
        return task_predictions(self.facts, outputs)

    def validation(self, val: SplitPart, predictions_NP: Floats) -> dict[str, Any]:
        """Score an epoch on the val part: the loss, all scores, and the one score that chooses the epoch.

        `predictions_NP`: those of `predictions` for the images of `val`. Returns part of a row of the
        history: `val_loss`, `val` (all scores), `val_metric` (the name of the score that chooses) and
        `val_score` (its value, with the sign by which higher is better; None where it is undefined).
        `val_auroc` is None, because it is the macro AUROC over classes, which these tasks do not have.
        """
        targets_NT = targets_of(val)
        scores = score_once(self.facts, targets_NT, predictions_NP)
        metric = VAL_SCORE[self.facts.kind]
        value = scores[metric]
        if self.facts.kind == MULTILABEL:
            # A label whose known values in val are all equal has no AUROC. `score_once` then has no mean, but
            # an epoch must still be chosen: by the mean over the other labels.
            value = _mean_defined_auroc(targets_NT, predictions_NP)
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        return {
            "val_loss": validation_loss(self.facts, targets_NT, predictions_NP),
            "val_auroc": None,
            "val": scores,
            "val_metric": metric,
            "val_score": None if value is None else sign * value,
        }


def targets_of(part: SplitPart) -> Floats:
    """The targets of a part, (N, T); NaN: not known. The caller's task has targets."""
    assert part.targets_NT is not None
    return part.targets_NT


def validation_loss(facts: TaskFacts, targets_NT: Floats, predictions_NP: Floats) -> float | None:
    """The mean loss of predictions: log loss of labels or of the true grade, smooth L1 of the number.

    `predictions_NP`: probabilities, or the number in its own unit. None where no label is known, or a
    prediction is not finite.
    """
    if facts.kind == MULTILABEL:
        known_NT = np.isfinite(targets_NT)
        true_probabilities_NT = np.where(targets_NT == 1, predictions_NP, 1 - predictions_NP)
        return finite_or_none(_log_loss(true_probabilities_NT[known_NT])) if known_NT.any() else None
    if facts.kind == REGRESSION:
        standardised = [torch.from_numpy((rows_N1[:, 0] - facts.mean) / facts.std)
                        for rows_N1 in (predictions_NP, targets_NT)]  # fmt: skip
        return finite_or_none(float(regression_loss(standardised[0], standardised[1].float())))
    true_grade_N = targets_NT[:, 0].astype(np.int64)
    return finite_or_none(_log_loss(predictions_NP[np.arange(len(targets_NT)), true_grade_N]))


def _log_loss(true_probabilities: Floats) -> float:
    """The mean of -ln p, where p is the probability that was predicted for what is true."""
    return float(-np.log(true_probabilities.clip(_MIN_PROBABILITY)).mean())


def _mean_defined_auroc(targets_NT: Floats, predictions_NT: Floats) -> float | None:
    """The mean AUROC over the labels that have one; None where no label has one."""
    # Scores are computed on resamples (R, N). Here there is one, with each image once.
    once_1N = np.ones((1, len(targets_NT)), dtype=np.int64)
    auroc_T = np.array(
        [
            label_scores(targets_NT[:, t], predictions_NT[:, t], once_1N)["auroc"][0]
            for t in range(targets_NT.shape[1])
        ]
    )
    return float(auroc_T[np.isfinite(auroc_T)].mean()) if np.isfinite(auroc_T).any() else None
