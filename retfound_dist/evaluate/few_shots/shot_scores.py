"""Scores of several random draws of a few patients a class: means, with intervals over draws and patients.

A resample draws test patients and, as many times as there are draws, one of the draws, with replacement. Its
value is the mean score of these draws on these patients. All rows have the same draws of patients and the
same resamples, so the scores of two rows in a resample are a pair.

Shapes: N images, C classes, R resamples, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retfound_dist.evaluate.data.label_subset import count_class_units
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import NONE
from retfound_dist.evaluate.report.paired_differences import DECISIVE_SCORES
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import MACRO, Floats
from retfound_dist.evaluate.scores.ranking_sums import Weights
from retfound_dist.evaluate.scores.unit_wording import train_images

EvaluationsByShots = Mapping[int, Mapping[str, Sequence[Evaluation]]]
"""Patients a class -> row -> the evaluation of each draw, all with the same test images."""
FINETUNED = "finetuned"
"""The method beside the probes."""
# A purpose in the keys of random generators.
_DRAWS = 41


@dataclass(frozen=True)
class ShotPlan:
    """Which numbers of patients a class a set can give."""

    unit: str = "patient"
    """`patient`, `volume`, `folder` or `image`."""
    shots: tuple[int, ...] = ()
    """In rising order."""
    short_classes: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Shots -> each class with fewer patients in train, and how many it has."""
    left_out: tuple[int, ...] = ()
    """Numbers that would take the whole train part in every draw."""

    @property
    def notes(self) -> list[str]:
        """What differs from the numbers that were asked for, a sentence each."""
        notes = []
        shots_by_text: dict[str, list[int]] = {}
        for shots, classes in self.short_classes.items():
            shortages = ", ".join(f"{name} has only {count}" for name, count in classes.items())
            shots_by_text.setdefault(shortages, []).append(shots)
        for shortages, numbers in shots_by_text.items():
            notes.append(
                f"with {list_numbers(numbers)} {self.unit}s a class: {shortages} in train, "
                "and all of them are used in every draw"
            )
        for shots in self.left_out:
            notes.append(
                f"{shots} {self.unit}s a class are left out: no class has more in train, so every draw would "
                "be the whole train part"
            )
        return notes


def list_numbers(numbers: Sequence[int]) -> str:
    """`1, 2 and 4`."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def plan_shots(data: LabelledSet, wanted: Sequence[int]) -> ShotPlan:
    """The numbers of patients a class that can be compared on a set with its whole train part."""
    unit, counts = count_class_units(data)
    shots = sorted(set(wanted))
    usable = tuple(count for count in shots if any(units > count for units in counts.values()))
    short = {
        count: few
        for count in usable
        if (few := {name: units for name, units in counts.items() if units < count})
    }
    return ShotPlan(unit, usable, short, tuple(count for count in shots if count not in usable))


def shots_entries(
    evaluations_by_shots: EvaluationsByShots,
    plan: ShotPlan,
    resamples: int,
    on_progress: ProgressCallback | None = None,
) -> list[dict[str, Any]]:
    """`label_shots` of compare.json: an entry for each number of patients a class, in rising order."""
    entries = []
    for done, shots in enumerate(sorted(evaluations_by_shots)):
        if on_progress:
            on_progress(done, len(evaluations_by_shots))
        entries.append(_shots_entry(shots, evaluations_by_shots[shots], plan, resamples))
    return entries


def _shots_entry(
    shots: int, rows: Mapping[str, Sequence[Evaluation]], plan: ShotPlan, resamples: int
) -> dict[str, Any]:
    """The entry of one number of patients a class. `rows`: row -> the evaluation of each draw."""
    first = next(iter(rows.values()))
    methods = [FINETUNED, *_common_probes(rows)]
    weights_RN = _patient_resamples(first[0], resamples)
    resampled = {
        method: {
            name: resampled_means(method_scores(draws, method, weights_RN)) for name, draws in rows.items()
        }
        for method in methods
    }
    summaries = {
        name: {method: _summaries(draws, method, resampled[method][name]) for method in methods}
        for name, draws in rows.items()
    }
    return {
        "shots": shots,
        "unit": plan.unit,
        "draws": len(first),
        "train": [train_images(evaluation.metrics) for evaluation in first],
        "short_classes": dict(plan.short_classes.get(shots, {})),
        "rows": summaries,
        "against_none": _differences_to_random_weights(rows, summaries, resampled),
    }


def _common_probes(rows: Mapping[str, Sequence[Evaluation]]) -> list[str]:
    """Probes whose predictions every evaluation has."""
    evaluations = [evaluation for draws in rows.values() for evaluation in draws]
    return [
        probe
        for probe in evaluations[0].probe_probabilities
        if all(probe in evaluation.probe_probabilities for evaluation in evaluations)
    ]


def _patient_resamples(evaluation: Evaluation, resamples: int) -> Weights:
    """(R, N): how often each test image is in each resample. A patient's images are drawn together."""
    _, units_N = bootstrap.resampling_units(evaluation.patients, evaluation.keys, evaluation.units)
    return bootstrap.resample(units_N, resamples, 0)


def method_scores(draws: Sequence[Evaluation], method: str, weights_RN: Weights) -> dict[str, Floats]:
    """Macro score -> its value for each draw in each resample of the patients (D, R)."""
    by_draw = [
        bootstrap.scores(draw.labels_N, _probabilities(draw, method), weights_RN)["macro"] for draw in draws
    ]
    return {name: np.stack([scores[name] for scores in by_draw]) for name in MACRO}


def resampled_means(scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Score -> its mean over a resample of the draws, in each resample of the patients (R,).

    `scores`: score -> (D, R). The resamples of the draws depend only on D and R, so rows are paired.
    """
    means = {}
    for name, values_DR in scores.items():
        draws, resamples = values_DR.shape
        generator = np.random.default_rng([draws, resamples, _DRAWS])
        drawn_RD = generator.integers(0, draws, (resamples, draws))
        means[name] = values_DR[drawn_RD, np.arange(resamples)[:, None]].mean(1)
    return means


def _probabilities(evaluation: Evaluation, method: str) -> Floats:
    """(N, C): what the fine-tuned network or a probe predicts for the test images."""
    if method == FINETUNED:
        return evaluation.probabilities_NC
    return evaluation.probe_probabilities[method]


def _macro_scores(evaluation: Evaluation, method: str) -> Mapping[str, float | None]:
    """Macro score of the fine-tuned network or of a probe -> its value; None where it is undefined."""
    metrics = evaluation.metrics if method == FINETUNED else evaluation.metrics["probe"][method]
    scores: Mapping[str, float | None] = metrics["macro"]
    return scores


def _summaries(
    draws: Sequence[Evaluation], method: str, resampled: Mapping[str, Floats]
) -> dict[str, dict[str, Any]]:
    """Macro score -> mean, standard deviation over the draws (n - 1) and interval of the mean.

    `resampled`: score -> its mean in each resample (R,), from `resampled_means`.
    """
    summaries = {}
    for name in MACRO:
        values = [_macro_scores(draw, method)[name] for draw in draws]
        defined = [value for value in values if value is not None]
        # No mean of some draws: it would be read as the mean of all.
        all_defined = len(defined) == len(values)
        summaries[name] = {
            "mean": float(np.mean(defined)) if all_defined else None,
            "std": float(np.std(defined, ddof=1)) if all_defined and len(defined) > 1 else None,
            "ci95": bootstrap.interval(resampled[name]) if all_defined else None,
        }
    return summaries


def _differences_to_random_weights(
    rows: Mapping[str, Sequence[Evaluation]],
    summaries: Mapping[str, Mapping[str, Any]],
    resampled: Mapping[str, Mapping[str, Mapping[str, Floats]]],
) -> list[dict[str, Any]]:
    """Each row minus the first row that began from random weights; empty without such a row.

    `rows`: row -> its draws. `summaries`: row -> method -> score -> its mean (see `_summaries`).
    `resampled`: method -> row -> score -> its mean in each resample (R,). Returns an entry of `against_none`
    for each method, row and decisive score.
    """
    random_row = next(
        (name for name, draws in rows.items() if draws[0].metrics["checkpoint"]["kind"] == NONE), None
    )
    if random_row is None:
        return []
    return [
        {"method": method, "row": row, "none": random_row, "metric": metric}
        | _difference(
            summaries[row][method][metric]["mean"],
            summaries[random_row][method][metric]["mean"],
            means_by_row[row][metric],
            means_by_row[random_row][metric],
        )
        for method, means_by_row in resampled.items()
        for row in rows
        if row != random_row
        for metric in DECISIVE_SCORES
    ]


def _difference(
    mean: float | None, other_mean: float | None, means_R: Floats, other_means_R: Floats
) -> dict[str, Any]:
    """A row's mean score minus that of another row, with its interval over the same resamples.

    `real`: the interval does not contain 0. An undefined mean gives an undefined difference.
    """
    if mean is None or other_mean is None:
        return {"difference": None, "ci95": None, "real": False}
    return {"difference": mean - other_mean, **bootstrap.paired_difference(means_R, other_means_R)}
