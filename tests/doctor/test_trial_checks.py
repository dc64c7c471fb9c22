"""What the trial's logs show, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retfound_dist.doctor.check_result import CheckResult
from retfound_dist.doctor.trial_checks import measured_rate_of, trial_checks
from retfound_dist.doctor.trial_run import Trial, TrialSize
from tests.doctor.checkups import small_checkup

SIZE = TrialSize(4, 10, 4, is_whole_batch=True)


def row(step: int, loss: float | None = None, **changes: Any) -> dict[str, Any]:
    values = {"images_per_s": 100.0 if step > 2 else 1.0, "step_s": 0.1, "data_wait_s": 0.001, "mfu": 0.4}
    base = {
        "step": step,
        "loss": 1 / step if loss is None else loss,
        "memory_gb": 2.0,
        "batch_digest": f"{step}",
    }
    return base | values | changes


ROWS = [*(row(step) for step in range(1, 7)), row(5), row(6)]
EVENTS = [
    {"event": "start", "device": "CPU"},
    {"event": "checkpoint", "step": 4, "stall_s": 0.2, "took_s": 1.5, "bytes_of_rank_0": 10_000_000},
]


def checks(folder: Path, trial: Trial) -> dict[str, CheckResult]:
    return {check.name: check for check in trial_checks(trial, small_checkup(folder), 0.0)}


def test_a_good_trial_is_ok_and_its_first_steps_do_not_count(tmp_path: Path) -> None:
    trial = Trial(SIZE, ROWS, EVENTS)
    found = checks(tmp_path, trial)
    assert {name: check.status for name, check in found.items()} == dict.fromkeys(
        ("step", "memory", "checkpoint", "resume"), "ok"
    )
    assert measured_rate_of(trial) == found["step"].value == 100
    assert "40% of the measured matrix rate" in found["step"].text
    assert "the steps stand still for 200 ms" in found["checkpoint"].text


@pytest.mark.parametrize(
    ("rows", "name", "status", "text"),
    [
        ([*ROWS[:5], row(6, loss=float("nan"))], "step", "failed", "a loss is not finite"),
        ([row(step, data_wait_s=0.02) for step in range(1, 7)], "step", "warning", "waits for images 20.0%"),
        ([*ROWS[:6], row(5, loss=0.21), row(6)], "resume", "failed", "difference of the loss 4.8e-02"),
        ([*ROWS[:6], row(5, batch_digest="other"), row(6)], "resume", "failed", "other batches"),
        (ROWS[:6], "resume", "failed", "did not resume"),
    ],
)
def test_what_is_wrong_is_told(
    rows: list[dict[str, Any]], name: str, status: str, text: str, tmp_path: Path
) -> None:
    check = checks(tmp_path, Trial(SIZE, rows, EVENTS))[name]
    assert check.status == status
    assert text in check.text
    assert check.what_to_do


def test_no_save_and_a_long_stall_are_told(tmp_path: Path) -> None:
    assert checks(tmp_path, Trial(SIZE, ROWS, EVENTS[:1]))["checkpoint"].status == "failed"
    slow = [EVENTS[0], EVENTS[1] | {"stall_s": 40.0}]
    assert checks(tmp_path, Trial(SIZE, ROWS, slow))["checkpoint"].status == "warning"


def test_after_a_failed_trial_the_other_checks_are_skipped(tmp_path: Path) -> None:
    found = checks(tmp_path, Trial(SIZE, [], [], "rank 1: retfound: no room"))
    assert found["step"].status == "failed"
    assert "no room" in found["step"].text
    assert {check.status for name, check in found.items() if name != "step"} == {"skipped"}
    assert measured_rate_of(Trial(SIZE, ROWS, EVENTS, "failed")) is None


def test_a_smaller_batch_than_the_run_s_is_told(tmp_path: Path) -> None:
    small = TrialSize(4, 2, 2, is_whole_batch=False)
    assert "(batch 2 in place of 10" in checks(tmp_path, Trial(small, ROWS, EVENTS))["step"].text
