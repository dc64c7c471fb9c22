"""Plots of tasks."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.task_results import task_plots
from retfound_dist.evaluate.task_results.task_plots import curve_plots, interval_plots, prediction_plots
from tests.evaluate.tasks_made import FACTS, made_task


def test_bland_altman_names_bias_and_limits_of_agreement() -> None:
    made = made_task("regression")
    difference = made.predictions_NP[:, 0] - made.targets_NT[:, 0]
    plot = prediction_plots(made)[1]
    assert f"the bias, {difference.mean():.3g}" in plot.note
    assert f"{difference.mean() + 1.96 * difference.std(ddof=1):.3g}" in plot.note


def test_a_label_with_one_answer_has_no_curve() -> None:
    made = made_task("multilabel")
    made.targets_NT[:, 0] = 1
    assert [name for _, name in prediction_plots(made)[0].legend] == ["fluid"]


def test_very_many_points_are_drawn_in_part_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_plots, "_MOST_POINTS", 20)
    plots = prediction_plots(made_task("regression"))
    assert all("20 of 60 images are shown" in plot.note for plot in plots)


@pytest.mark.parametrize("kind", FACTS)
def test_curves_and_intervals_exist_for_each_kind(kind: str) -> None:
    rows = {"a": made_task(kind), "b": made_task(kind, seed=1)}
    plots = [*curve_plots(rows), *interval_plots(rows)]
    assert len(plots) == 4
    assert all("<svg" in plot.svg for plot in plots)


def test_the_curve_of_an_error_falls() -> None:
    """`val_score` is the negative error; the page shows the error."""
    made = made_task("regression")
    line = task_plots._line(made.history[:2], "val_score", 0, -1.0)
    assert np.diff(line.y).tolist() == [-0.5]
