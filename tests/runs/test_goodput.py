"""A run's time split into parts, by events and rows made by hand."""

import random
from typing import Any

import pytest

from retfound_dist.errors import TrainingError
from retfound_dist.runs.goodput import goodput


def start(began: float, ready: float, step: int = 0, load_s: float = 0.0) -> dict[str, Any]:
    return {"event": "start", "time": ready, "began": began, "ready": ready, "load_s": load_s, "step": step,
            "world_size": 1}  # fmt: skip


def end(time: float, step: int) -> dict[str, Any]:
    return {"event": "end", "time": time, "step": step, "reason": "done"}


def row(step: int, time: float, step_s: float = 1.0) -> dict[str, Any]:
    return {"step": step, "time": time, "step_s": step_s}


def test_an_undisturbed_run_loses_its_start_and_its_saves() -> None:
    found = goodput([start(100, 110), end(117, 5)], [row(n, 110 + n) for n in range(1, 6)])
    assert (found.wall_s, found.useful_s, found.restart_s) == (17, 5, 10)
    assert (found.redo_s, found.load_s, found.down_s, found.rest_s) == (0, 0, 0, 2)
    assert found.goodput == pytest.approx(5 / 17)


def test_a_step_done_twice_counts_by_its_later_row() -> None:
    events = [start(0, 10), start(20, 30, step=2, load_s=4), end(33, 4)]
    rows = [row(1, 11), row(2, 12), row(3, 13, step_s=1.5), row(3, 31), row(4, 32, step_s=2)]
    found = goodput(events, rows)
    assert (found.useful_s, found.redo_s) == (5, 1.5)
    assert (found.load_s, found.restart_s) == (4, 10 + 6)


def test_without_an_end_a_process_is_gone_after_its_last_step() -> None:
    found = goodput([start(0, 10), start(20, 30, step=1), end(32, 2)], [row(1, 12), row(2, 31)])
    assert found.down_s == 20 - 12


def test_an_end_logged_by_who_killed_it_leaves_the_broken_off_step_to_the_rest() -> None:
    found = goodput([start(0, 10), end(19, 1), start(20, 30, step=1), end(31, 2)], [row(1, 11), row(2, 31)])
    assert found.down_s == 1
    assert found.rest_s == 19 - 11


def test_a_process_killed_before_its_first_step_costs_its_start() -> None:
    found = goodput([start(0, 10), start(12, 22), end(23, 1)], [row(1, 23)])
    assert (found.restart_s, found.down_s, found.useful_s) == (20, 2, 1)


def test_a_row_stands_for_the_steps_since_the_one_before() -> None:
    rows = [row(1, 11), row(5, 15), row(10, 20), row(6, 41, step_s=2), row(10, 49, step_s=2)]
    found = goodput([start(0, 10), start(30, 39, step=5), end(49, 10)], rows)
    assert found.useful_s == 1 + 4 + 5 * 2
    assert found.redo_s == 5


def test_rows_without_a_time_are_split_by_the_events_alone() -> None:
    rows = [{"step": 1, "step_s": 1.0}, {"step": 2, "step_s": 1.0}]
    assert goodput([start(0, 10), end(13, 2)], rows).rest_s == 1


def test_the_parts_add_up_to_the_wall_time() -> None:
    events = [start(0, 10), end(15, 4), start(16, 28, step=2, load_s=3), start(40, 49, step=4), end(60, 9)]
    rows = [row(n, 10 + n) for n in range(1, 5)] + [row(n, 26 + n) for n in range(3, 7)]
    rows += [row(n, 45 + n) for n in range(5, 10)]
    found = goodput(events, rows)
    parts = found.useful_s + found.redo_s + found.load_s + found.restart_s + found.down_s + found.rest_s
    assert parts == found.wall_s == 60
    assert found.rest_s >= 0


def test_a_run_without_events_says_so() -> None:
    with pytest.raises(TrainingError, match="none of the run's 0 events is a start"):
        goodput([], [row(1, 1)])


def by_step(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The same as `goodput` finds, by counting every step."""
    counts: dict[int, float] = {}
    total, before = 0.0, 0
    for each in rows:
        for number in range(before + 1 if each["step"] > before else each["step"], each["step"] + 1):
            counts[number] = each["step_s"]
            total += each["step_s"]
        before = each["step"]
    return sum(counts.values()), total - sum(counts.values())


def test_stretches_of_steps_count_as_each_step_does() -> None:
    draw = random.Random(0)
    for _ in range(500):
        rows = [row(draw.randint(0, 30), 0, draw.random()) for _ in range(draw.randint(0, 25))]
        found = goodput([start(0, 1)], rows)
        assert (found.useful_s, found.redo_s) == pytest.approx(by_step(rows), abs=1e-9)


def test_a_row_that_names_an_impossible_step_costs_no_time() -> None:
    assert goodput([start(0, 1)], [row(10**11, 2), row(3, 3)]).redo_s == 1
