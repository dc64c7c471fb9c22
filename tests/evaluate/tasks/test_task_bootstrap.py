"""Intervals of tasks: the same draws of patients and seeds as for classes."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.tasks import task_bootstrap
from retfound_dist.evaluate.tasks.task_bootstrap import resampled_scores, score_intervals
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.evaluate.tasks.task_scores import weighted_scores

FACTS = TaskFacts("regression", ("age",))
DRAW = np.random.default_rng(3)
TRUTH = DRAW.normal(60, 10, (40, 1))
PREDICTED = TRUTH[None] + DRAW.normal(0, [[[2.0]], [[5.0]], [[9.0]]], (3, 40, 1))
_, UNITS = bootstrap.resampling_units([f"p{i // 4}" for i in range(40)], [str(i) for i in range(40)])
WEIGHTS = bootstrap.resample(UNITS, 60, 0)


def test_each_resample_scores_the_mean_of_its_drawn_seeds() -> None:
    scored = resampled_scores(FACTS, TRUTH, PREDICTED, WEIGHTS)
    draws = np.random.default_rng([3, 60]).integers(0, 3, (60, 3))
    for r in (0, 17, 59):
        expected = weighted_scores(FACTS, TRUTH, PREDICTED[draws[r]].mean(0), WEIGHTS[r : r + 1])
        for name, values_R in scored.items():
            assert values_R[r] == pytest.approx(expected[name][0]), name


def test_small_chunks_give_the_same_and_report_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled_scores(FACTS, TRUTH, PREDICTED, WEIGHTS)
    monkeypatch.setattr(task_bootstrap, "_CHUNK", 40 * 7)
    reported: list[tuple[int, int]] = []
    parts = resampled_scores(FACTS, TRUTH, PREDICTED, WEIGHTS, lambda done, of: reported.append((done, of)))
    assert reported[-1] == (60, 60)
    assert len(reported) > 5
    for name in whole:
        assert parts[name] == pytest.approx(whole[name])


def test_the_interval_contains_the_score_and_is_wider_where_images_of_a_patient_err_alike() -> None:
    errors_N1 = np.repeat(np.random.default_rng(5).normal(0, 5, (10, 1)), 4, axis=0)
    predicted = TRUTH[None] + errors_N1
    alone = bootstrap.resample(np.arange(40), 400, 0)
    of_patients = bootstrap.resample(UNITS, 400, 0)
    widths = []
    for weights in (of_patients, alone):
        span = score_intervals(resampled_scores(FACTS, TRUTH, predicted, weights))["mae"]
        assert span is not None
        assert span[0] < float(np.abs(errors_N1).mean()) < span[1]
        widths.append(span[1] - span[0])
    # Four equal images of each of 10 patients hold as much as 10 images: twice the width of 40.
    assert 1.5 < widths[0] / widths[1] < 2.7
