"""Rows of a task are compared on the same resamples; a smaller error is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.task_results.task_comparison import task_comparison
from retfound_dist.evaluate.tasks.task_bootstrap import resampled_scores
from tests.evaluate.tasks_made import FACTS, made_task

RESAMPLES = 200


@pytest.mark.parametrize("kind", FACTS)
def test_a_clearly_better_row_is_named_in_each_kind(kind: str) -> None:
    rows = {"scratch": made_task(kind, seed=0, error=3.0), "good": made_task(kind, seed=1, error=0.1)}
    tree = task_comparison(rows, RESAMPLES)
    assert set(tree["best"].values()) == {"good"}
    text = " ".join(tree["sentences"])
    assert "“good” is better than no pretraining" in text
    assert "It is clearly ahead of “scratch”" in text
    assert all(line["real"] for line in tree["pairs"])


def test_a_smaller_error_wins_and_the_difference_says_so() -> None:
    rows = {"scratch": made_task("regression", error=3.0), "good": made_task("regression", seed=1, error=0.1)}
    line = next(p for p in task_comparison(rows, RESAMPLES)["against_none"] if p["metric"] == "mae")
    mae = {name: row.metrics["scores"]["mae"] for name, row in rows.items()}
    assert line["difference"] == mae["good"] - mae["scratch"] < 0
    assert line["ci95"][1] < 0


def test_intervals_are_those_of_paired_resamples() -> None:
    rows = {"scratch": made_task("ordinal", error=1.0), "other": made_task("ordinal", seed=1, error=0.9)}
    first = rows["scratch"]
    _, units_N = bootstrap.resampling_units(first.patients, first.keys)
    weights_RN = bootstrap.resample(units_N, RESAMPLES, 0)
    kappa = {
        name: resampled_scores(r.facts, r.targets_NT, r.predictions_SNP, weights_RN)["quadratic_kappa"]
        for name, r in rows.items()
    }
    line = next(p for p in task_comparison(rows, RESAMPLES)["pairs"] if p["metric"] == "quadratic_kappa")
    assert line["ci95"] == bootstrap.interval(kappa["scratch"] - kappa["other"])


def test_equal_rows_are_not_called_different() -> None:
    rows = {"scratch": made_task("regression"), "same": made_task("regression")}
    tree = task_comparison(rows, RESAMPLES)
    assert not any(line["real"] for line in tree["pairs"])
    assert tree["ties"]["mae"] == ["same"]


def test_other_test_images_are_refused() -> None:
    rows = {"a": made_task("regression"), "b": made_task("regression")}
    rows["b"] = replace(rows["b"], keys=tuple(reversed(rows["b"].keys)))
    with pytest.raises(DataError, match="row b has other test images"):
        task_comparison(rows, RESAMPLES)


def test_a_score_that_is_undefined_in_a_row_is_not_compared() -> None:
    rows = {"a": made_task("regression"), "b": made_task("regression", seed=1)}
    for row in rows.values():
        row.metrics["scores"]["concordance"] = None
    tree = task_comparison(rows, RESAMPLES)
    assert "concordance is undefined for every row." in tree["sentences"]
    assert [p["difference"] for p in tree["pairs"] if p["metric"] == "concordance"] == [None]
    assert np.isfinite(next(p["difference"] for p in tree["pairs"] if p["metric"] == "mae"))
