from __future__ import annotations

import numpy as np

from retfound_dist.config.schema import Alarm
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.watching.probe_alarms import Point, alarm_rows, compare_checkpoints

LABELS = np.random.default_rng(0).integers(0, 3, 300)
WEIGHTS = bootstrap.resample(np.arange(300), 400, 0)


def point(step: int, skill: float, seed: int = 0) -> Point:
    """A classifier whose logits hold the truth `skill` times and noise."""
    logits = skill * np.eye(3)[LABELS] + np.random.default_rng([7, seed]).normal(size=(300, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    drawn = bootstrap.scores(LABELS, p, WEIGHTS)["macro"]["aupr"]
    value = bootstrap.scores(LABELS, p, np.ones((1, 300)))["macro"]["aupr"][0]
    return Point(step, float(value), drawn)


def kinds(start: Point | None, *points: Point, patience: int = 1) -> list[tuple[int, str]]:
    return [
        (r["step"], r["kind"])
        for r in alarm_rows(compare_checkpoints(start, points, 0.01), Alarm(patience=patience))
    ]


def test_a_run_that_gets_better_raises_no_alarm() -> None:
    assert kinds(point(0, 0.5), *(point(10 * i, 0.5 + 0.4 * i, i) for i in range(1, 5))) == []


def test_worse_than_the_starting_weights_is_an_alarm_at_once() -> None:
    assert kinds(point(0, 2.0), point(10, 0.5, 1)) == [(10, "worse_than_start")]


def test_falling_from_the_best_is_an_alarm_though_still_above_the_start() -> None:
    found = kinds(point(0, 0.0), point(10, 2.0, 1), point(20, 2.0, 2), point(30, 1.0, 3))
    assert found == [(30, "falling")]


def test_a_difference_within_its_interval_is_none() -> None:
    assert kinds(point(0, 1.0), *(point(i, 1.0, i) for i in range(1, 4))) == []


def test_a_trifle_is_no_alarm_however_sure() -> None:
    drawn = np.linspace(0.6, 0.8, 400)
    before, after = Point(10, 0.7, drawn), Point(20, 0.695, drawn - 0.005)
    assert kinds(None, before, after) == []
    assert len(alarm_rows(compare_checkpoints(None, [before, after], 0.001), Alarm())) == 1


def test_with_patience_the_second_in_a_row_counts() -> None:
    start, bad = point(0, 2.0), [point(i, 0.5, i) for i in (1, 2, 3)]
    assert kinds(start, bad[0], point(5, 2.2, 5), bad[1], patience=2) == []
    assert kinds(None, point(1, 2.0), point(2, 0.5, 2), point(3, 0.5, 3), patience=2) == [(3, "falling")]


def test_an_alarm_says_what_fell_from_where_by_how_much() -> None:
    (row,) = alarm_rows(compare_checkpoints(point(0, 2.0), [point(10, 0.5, 1)], 0.01), Alarm())
    assert row["against_step"] == 0
    assert row["difference"] < 0
    assert row["ci95"][1] < 0
    assert "step 10 is worse than its own starting weights: linear probe, AUPR \u22120." in row["message"]


def test_a_score_that_is_undefined_is_no_alarm() -> None:
    nothing = Point(10, None, np.full(400, np.nan))
    assert kinds(point(0, 2.0), nothing) == []
    assert kinds(nothing, point(20, 1.0)) == []
