"""Pairs of rows: differences in both directions, ties and the best row, for scores that should be high or low."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.scores.row_pairs import (
    best_row,
    differences_to_best,
    differences_to_none,
    directed,
    pair_differences,
    tied_rows,
)

SCORES = {
    "none": {"auroc": 0.7, "mae": 5.0, "mcc": None},
    "good": {"auroc": 0.9, "mae": 2.0, "mcc": None},
    "same": {"auroc": 0.9, "mae": 2.0, "mcc": None},
    "lost": {"auroc": None, "mae": None, "mcc": None},
}
NOISE = np.random.default_rng(0).normal(size=200) * 0.01
RESAMPLED = {
    name: {metric: (np.nan if value is None else value) + NOISE for metric, value in row.items()}
    for name, row in SCORES.items()
}


def test_the_best_row_has_the_highest_score_or_the_lowest_error() -> None:
    assert best_row("auroc", SCORES) == "good"
    assert best_row("mae", SCORES) == "good"
    assert best_row("mcc", SCORES) is None


def test_a_row_with_equal_scores_is_tied_and_an_undefined_one_is_not() -> None:
    for metric in ("auroc", "mae"):
        assert tied_rows(metric, SCORES, RESAMPLED) == ["same"]
    assert tied_rows("mcc", SCORES, RESAMPLED) == []


def test_a_pair_is_known_in_both_directions_and_counted_once() -> None:
    pairs = pair_differences(("auroc", "mae"), SCORES, RESAMPLED)
    assert len(pairs) == 2 * 6
    assert {pair["comparisons"] for pair in pairs} == {3}
    one, other = directed(pairs, "mae", "none", "good"), directed(pairs, "mae", "good", "none")
    assert one["difference"] == pytest.approx(3)
    assert other["difference"] == pytest.approx(-3)
    assert other["ci95"] == [-one["ci95"][1], -one["ci95"][0]]
    assert "one" not in one
    undefined = directed(pairs, "auroc", "lost", "good")
    assert (undefined["difference"], undefined["real"]) == (None, False)


def test_leads_rise_whatever_the_direction_of_the_score_and_undefined_ones_come_last() -> None:
    pairs = pair_differences(("auroc", "mae"), SCORES, RESAMPLED)
    lines = differences_to_best({"auroc": "good", "mae": "good"}, list(SCORES), pairs)
    assert [(line["metric"], line["other"]) for line in lines] == [
        *(("auroc", name) for name in ("same", "none", "lost")),
        *(("mae", name) for name in ("same", "none", "lost")),
    ]
    assert lines[1]["difference"] > 0 > lines[4]["difference"]


def test_without_a_row_of_random_weights_nothing_is_compared_with_it() -> None:
    pairs = pair_differences(("mae",), SCORES, RESAMPLED)
    assert differences_to_none(("mae",), list(SCORES), None, pairs) == []
    lines = differences_to_none(("mae",), list(SCORES), "none", pairs)
    assert [line["row"] for line in lines] == ["good", "same", "lost"]
    assert lines[0]["difference"] == pytest.approx(-3)
