"""The evaluation of a task: its predictions, and the content of metrics.json.

Shapes: S seeds, N images, T targets, P predictions of an image, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from retfound_dist.evaluate.classifier.kept_classifier import KeptClassifier
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.finetune.seeds import mean_and_std
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.tasks.label_thresholds import threshold_rates, threshold_values
from retfound_dist.evaluate.tasks.task_facts import (
    MULTILABEL,
    ORDINAL,
    SCORES,
    TaskFacts,
    facts_from_json,
)
from retfound_dist.evaluate.tasks.task_outputs import mean_predictions, predicted_grades
from retfound_dist.evaluate.tasks.task_scores import finite_or_none, label_scores, score_once
from retfound_dist.listing.split_units import Unit


@dataclass(frozen=True)
class TaskEvaluation:
    """An evaluation of a task, or one row of a comparison."""

    metrics: dict[str, Any]
    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    targets_NT: Floats
    predictions_SNP: Floats
    """Of each seed; their mean is what is scored."""
    history: list[dict[str, Any]]
    val_predictions_NP: Floats | None = None
    """The mean over seeds. None without a val part, and after reading from files."""
    classifier: KeptClassifier | None = None
    """The network to keep. None without one, and after reading from files."""
    history_fault: str = ""
    """A sentence about lines of history.jsonl that cannot be read; they are missing in the curves."""

    @cached_property
    def facts(self) -> TaskFacts:
        """The task."""
        return facts_from_json(self.metrics["task"])

    @cached_property
    def predictions_NP(self) -> Floats:
        """The mean prediction of the seeds."""
        return mean_predictions(self.predictions_SNP)

    @property
    def units(self) -> list[Unit]:
        """The bootstrap unit of each test image; empty where it is the patient or the image itself."""
        resampled = self.metrics["bootstrap"]
        return [(resampled["unit"], name) for name in resampled.get("unit_names", ())]


def seed_tables(facts: TaskFacts, targets_NT: Floats, results: Sequence[FinetuneResult]) -> dict[str, Any]:
    """`per_seed`: the scores of each seed; `over_seeds`: their mean and standard deviation (n - 1)."""
    scores = [score_once(facts, targets_NT, result.probabilities) for result in results]
    return {
        "per_seed": [
            {"seed": result.seed, "epoch": result.chosen_epoch, "scores": of_seed}
            for result, of_seed in zip(results, scores, strict=True)
        ],
        "over_seeds": {name: mean_and_std([one[name] for one in scores]) for name in SCORES[facts.kind]},
    }


def target_tables(
    facts: TaskFacts, targets_NT: Floats, predictions_NP: Floats, thresholds: Mapping[str, Any]
) -> dict[str, Any]:
    """`per_target`: each label, the number, or each grade by itself; of grades also `confusion`.

    `thresholds`: of `choose_thresholds`; empty for a number and grades.
    """
    if facts.kind == MULTILABEL:
        values_T = threshold_values(facts.targets, thresholds)
        return {
            "per_target": {
                name: _label_row(targets_NT[:, t], predictions_NP[:, t], float(values_T[t]))
                for t, name in enumerate(facts.targets)
            }
        }
    if facts.kind == ORDINAL:
        return _grade_tables(facts.grades, targets_NT[:, 0].astype(np.int64), predictions_NP)
    numbers_N, predicted_N = targets_NT[:, 0], predictions_NP[:, 0]
    row = {
        "images": len(numbers_N),
        "mean": float(numbers_N.mean()),
        "std": float(numbers_N.std()),
        "least": float(numbers_N.min()),
        "most": float(numbers_N.max()),
        "bias": float((predicted_N - numbers_N).mean()),
        # The best constant answer: an error near this one has learned nothing.
        "mae_of_median": float(np.abs(numbers_N - np.median(numbers_N)).mean()),
    }
    return {"per_target": {facts.targets[0]: row}}


def _label_row(truth_N: Floats, probability_N: Floats, threshold: float) -> dict[str, Any]:
    scores = label_scores(truth_N, probability_N, np.ones((1, len(truth_N)), dtype=np.int64))
    return {
        "images": int(np.isfinite(truth_N).sum()),
        "with_label": int((truth_N == 1).sum()),
        **{name: finite_or_none(values_R[0]) for name, values_R in scores.items()},
        "threshold": threshold,
        **threshold_rates(truth_N, probability_N, threshold),
    }


def _grade_tables(grades: Sequence[str], truth_N: Any, predictions_NK: Floats) -> dict[str, Any]:
    """Images, hits and mean distance of each of K grades, and the confusion matrix (K, K): truth by row.

    `predictions_NK`: probabilities of the grades.
    """
    predicted_N = predicted_grades(predictions_NK)
    confusion = np.zeros((len(grades), len(grades)), dtype=np.int64)
    np.add.at(confusion, (truth_N, predicted_N), 1)
    distance_N = np.abs(predicted_N - truth_N)
    rows = {}
    for k, grade in enumerate(grades):
        of_grade = truth_N == k
        rows[grade] = {
            "images": int(of_grade.sum()),
            "predicted": int((predicted_N == k).sum()),
            "correct_share": float((distance_N[of_grade] == 0).mean()) if of_grade.any() else None,
            "mae_grades": float(distance_N[of_grade].mean()) if of_grade.any() else None,
        }
    return {"per_target": rows, "confusion": confusion.tolist()}
