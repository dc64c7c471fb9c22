"""A line of a log that is not of its kind is left out and named; every other line is read as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.formats import log_rows
from retfound_dist.formats.log_rows import ALARMS, ANOMALIES, EVENTS, METRICS, AnyStep, read_log

STEP = {
    "step": 5, "epoch": 0.5, "samples": 320, "loss": 0.25, "lr": 1e-4, "grad_norm": None, "images_per_s": 6.4,
    "data_wait_s": 0, "step_s": 10.0, "world_size": 2,
}  # fmt: skip
START = {
    "event": "start",
    "time": 20.0,
    "began": 1.0,
    "ready": 20.0,
    "step": 0,
    "world_size": 2,
    "zero_stage": 1,
}
END = {"event": "end", "time": 90.0, "step": 5, "reason": "finished"}
SAVE = {"event": "checkpoint", "time": 80.0, "stall_s": 0.1, "bytes_of_rank_0": 7}
ANOMALY = {"step": 4, "kind": "loss_spike", "loss": None, "suspects": ["a", "b"]}
ALARM = {"message": "step 100 is worse", "step": 100}


def write_log(run: Path, name: str, *rows: Any) -> None:
    (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "row"),
    [(METRICS, STEP), (EVENTS, START), (EVENTS, END), (EVENTS, SAVE), (ANOMALIES, ANOMALY), (ALARMS, ALARM)],
)
def test_a_line_is_read_with_keys_of_later_versions_and_named_where_one_is_missing(
    name: str, row: dict[str, Any], tmp_path: Path
) -> None:
    later = row | {"of_the_future": {"a": [1, None]}}
    required = [key for key in row if key not in ("loss", "suspects") or name == METRICS]
    required = [key for key in required if (name, key) != (ALARMS, "step")]
    short = [{key: value for key, value in row.items() if key != missing} for missing in required]
    write_log(tmp_path, name, later, *short, row)
    log = read_log(str(tmp_path), name)
    assert log.rows == [later, row]
    assert (log.bad, log.total) == (len(required), len(required) + 2)
    assert "the first is line 2: " in log.fault
    assert f"{required[0]} is missing" in log.fault


def test_an_event_that_this_version_does_not_know_is_read_by_its_time_alone(tmp_path: Path) -> None:
    unknown = {"event": "of_the_future", "time": 3.0, "step": "seven"}
    write_log(tmp_path, EVENTS, unknown, {"event": "of_the_future"})
    log = read_log(str(tmp_path), EVENTS)
    assert (log.rows, log.bad) == ([unknown], 1)


@pytest.mark.parametrize(
    "wrong",
    [{"step": -1}, {"step": True}, {"step": 1e3}, {"step": 10**12}, {"step_s": 0}, {"time": 1e12}, {"loss": "1"},
     {"world_size": 1 << 63}],
    ids=str,
)  # fmt: skip
def test_a_value_that_no_run_writes_leaves_its_line_out(wrong: dict[str, Any], tmp_path: Path) -> None:
    """Curves, rates and dates are drawn from these without another check."""
    write_log(tmp_path, METRICS, STEP | wrong, STEP)
    log = read_log(str(tmp_path), METRICS)
    assert (log.rows, log.bad) == ([STEP], 1)


def test_a_reader_may_ask_for_less_of_a_line(tmp_path: Path) -> None:
    write_log(tmp_path, METRICS, {"step": 1}, {"loss": 0.5})
    assert read_log(str(tmp_path), METRICS).rows == []
    assert read_log(str(tmp_path), METRICS, AnyStep).rows == [{"step": 1}]


def test_a_run_without_a_log_has_no_lines_and_no_fault(tmp_path: Path) -> None:
    log = read_log(str(tmp_path), METRICS)
    assert (log.rows, log.total, log.fault) == ([], 0, "")


def test_of_a_step_done_twice_the_later_line_counts_and_steps_are_in_order() -> None:
    rows = [{"step": 1, "n": 1}, {"step": 3, "n": 2}, {"step": 2, "n": 3}, {"step": 3, "n": 4}]
    assert [row["n"] for row in log_rows.each_step_once(rows)] == [1, 3, 4]
