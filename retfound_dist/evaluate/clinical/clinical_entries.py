"""`clinical` in metrics.json: operating points, calibration and decision curves of a test.

All but `calibration.uncalibrated` is computed from calibrated probabilities, those that `retfound predict`
gives.

Shapes: N images, M classes, R resamples, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.brier_score import calibration_entries
from retfound_dist.evaluate.clinical.cut_counts import CutCounts, Cuts, count, count_resamples
from retfound_dist.evaluate.clinical.decision_curves import THRESHOLDS, curve_entry
from retfound_dist.evaluate.clinical.operating_points import (
    SENSITIVITY,
    SPECIFICITY,
    Target,
    Threshold,
    choose_threshold,
    list_targets,
)
from retfound_dist.evaluate.clinical.predictive_values import (
    TwoByTwo,
    finite_or_none,
    rate_entries,
    rate_interval,
)
from retfound_dist.evaluate.clinical.questions import Question, list_questions
from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import Floats, Labels

PROBABILITIES = "calibrated: the mean over seeds at the temperature that was fitted on val"


def clinical_entries(
    images: ScoredImages,
    val_labels_V: Labels | None,
    val_probabilities_VM: Floats | None,
    settings: Clinical,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """The scores of a test, as values for JSON; undefined ones are None, with a reason.

    `val_*`: labels and uncalibrated mean probabilities (V, M) of val, by which thresholds are chosen; None
    without a val part.
    """
    questions = list_questions(settings, images.classes)
    thresholds = [
        _thresholds(question, images, val_labels_V, val_probabilities_VM, settings) for question in questions
    ]
    cuts = [_cuts(*asked, settings) for asked in zip(questions, thresholds, strict=True)]
    once, resampled = count(images, cuts), count_resamples(images, cuts, on_progress)
    return {
        "probabilities": PROBABILITIES,
        "temperature": images.temperature,
        "calibration": calibration_entries(images),
        "questions": {
            cut.question.name: _question_entry(images, cut, chosen, *counts, settings)
            for cut, chosen, counts in zip(cuts, thresholds, zip(once, resampled, strict=True), strict=True)
        },
    }


def kept_thresholds(clinical: Mapping[str, Any] | None) -> dict[str, Any]:
    """`thresholds` of classifier.json: for each question its classes and the thresholds chosen on val.

    `clinical`: of metrics.json; None where it has none.
    """
    if clinical is None:
        return {}
    names = ("target", "threshold", "reason", "val")
    return {
        name: {
            "classes": entry["classes"],
            "points": [{key: point[key] for key in names} for point in entry["operating_points"]],
        }
        for name, entry in clinical["questions"].items()
    }


def _thresholds(
    question: Question,
    images: ScoredImages,
    val_labels_V: Labels | None,
    val_probabilities_VM: Floats | None,
    settings: Clinical,
) -> list[Threshold]:
    """The threshold for each target of the settings, chosen on the V units of val.

    Without a val part every threshold is None, with the reason.
    """
    truth_V = score_V = None
    if val_labels_V is not None and val_probabilities_VM is not None:
        truth_V = question.truth(val_labels_V)
        score_V = question.score(images.at_temperature(val_probabilities_VM))
    return [
        choose_threshold(truth_V, score_V, target, question.name, images.unit)
        for target in list_targets(settings)
    ]


def _cuts(question: Question, thresholds: Sequence[Threshold], settings: Clinical) -> Cuts:
    chosen = [threshold.value for threshold in thresholds if threshold.value is not None]
    return Cuts(question, np.unique([*THRESHOLDS, *chosen]), settings.specificities, settings.sensitivities)


def _question_entry(
    images: ScoredImages,
    cuts: Cuts,
    thresholds: Sequence[Threshold],
    once: CutCounts,
    resampled: CutCounts,
    settings: Clinical,
) -> dict[str, Any]:
    """The JSON of one question: its operating points, with rates and intervals on test; its decision curve.

    `once`: the counts at each cut on test itself (R = 1); `resampled`: those of the R bootstrap resamples.
    """
    question = cuts.question
    curve_T = np.searchsorted(cuts.thresholds_T, THRESHOLDS)
    curves = (
        (counts.true_TR[curve_T], counts.false_TR[curve_T], counts.positives_R, counts.negatives_R)
        for counts in (once, resampled)
    )
    points = []
    for threshold in thresholds:
        point = threshold.to_json()
        point["test"] = _test_rates(images, cuts, threshold, once, resampled, settings)
        point["test_roc"] = _test_roc(images, cuts, threshold.target, once, resampled)
        points.append(point)
    return {
        "classes": list(question.classes),
        "positives": int(once.positives_R[0]),
        "negatives": int(once.negatives_R[0]),
        "operating_points": points,
        "decision_curve": curve_entry(*curves),
    }


def _test_rates(
    images: ScoredImages,
    cuts: Cuts,
    threshold: Threshold,
    once: CutCounts,
    resampled: CutCounts,
    settings: Clinical,
) -> dict[str, Any] | None:
    """What the threshold achieves on test; None without a threshold."""
    if threshold.value is None:
        return None
    question, place = cuts.question, int(np.searchsorted(cuts.thresholds_T, threshold.value))
    of_test, of_resamples = (
        TwoByTwo(counts.true_TR[place], counts.false_TR[place], counts.positives_R, counts.negatives_R)
        for counts in (once, resampled)
    )
    truth_N = question.truth(images.labels_N)
    called_N = question.score(images.calibrated_NM) >= threshold.value
    chosen = {"sensitivity": truth_N, "specificity": ~truth_N, "ppv": called_N, "npv": ~called_N}
    units = {rate: images.units_among(chosen_N) for rate, chosen_N in chosen.items()}
    prevalence = question.prevalence(settings.prevalence)
    return rate_entries(of_test, of_resamples, units, question.name, prevalence, images.unit)


def _test_roc(
    images: ScoredImages, cuts: Cuts, target: Target, once: CutCounts, resampled: CutCounts
) -> dict[str, Any]:
    """The other rate at exactly this one, read from the ROC curve of test: no threshold was chosen before."""
    truth_N = cuts.question.truth(images.labels_N)
    if target.kind == SPECIFICITY:
        rate, row, of_N = SENSITIVITY, cuts.specificities.index(target.level), truth_N
        value, drawn_R = once.roc_sensitivity_LR[row, 0], resampled.roc_sensitivity_LR[row]
    else:
        rate, row, of_N = SPECIFICITY, cuts.sensitivities.index(target.level), ~truth_N
        value, drawn_R = once.roc_specificity_LR[row, 0], resampled.roc_specificity_LR[row]
    entry: dict[str, Any] = {rate: finite_or_none(value)}
    entry["ci95"] = rate_interval(entry[rate], drawn_R, images.units_among(of_N))
    missing = "no" if not truth_N.any() else "every"
    entry["reason"] = (
        f"{missing} test {images.unit} is of {cuts.question.name}" if entry[rate] is None else None
    )
    return entry
