"""What a resumed run reads from its own logs: only the steps that the resume keeps, each counted once."""

import json
from pathlib import Path
from typing import Any

from retfound_dist.formats import run_folder
from retfound_dist.train.logs.earlier_starts import read_earlier_starts
from retfound_dist.train.logs.telemetry import process_began


def write_rows(run: Path, name: str, *rows: dict[str, Any]) -> None:
    (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_without_logs_begins_with_this_process(tmp_path: Path) -> None:
    earlier = read_earlier_starts(str(tmp_path), 0)
    assert (earlier.useful_s, earlier.anomalies, earlier.save_time, earlier.log_faults) == (0, [], None, [])
    assert abs(earlier.began - process_began()) < 1


def test_steps_after_the_resume_and_steps_that_were_repeated_do_not_count_twice(tmp_path: Path) -> None:
    numbers = dict.fromkeys(("epoch", "loss", "lr", "grad_norm", "images_per_s", "data_wait_s"), 1.0)
    rows = [
        numbers | {"step": step, "samples": 8 * step, "step_s": seconds, "world_size": 1}
        for step, seconds in ((2, 1.0), (4, 2.0), (6, 4.0), (4, 8.0))
    ]
    write_rows(tmp_path, run_folder.METRICS, *rows)
    # Steps 1 and 2 took a second each, steps 3 and 4 of the second start 8; step 6 was discarded.
    assert read_earlier_starts(str(tmp_path), 4).useful_s == 2 * 1.0 + 2 * 8.0
    assert read_earlier_starts(str(tmp_path), 2).useful_s == 2 * 1.0


def test_the_first_start_and_the_anomalies_up_to_the_step_are_read(tmp_path: Path) -> None:
    starts = [
        {"event": "start", "time": 300.0, "began": began, "ready": 300.0, "step": 0}
        | {"world_size": 1, "zero_stage": 2}
        for began in (200.0, 100.0)
    ]
    write_rows(tmp_path, run_folder.EVENTS, *starts)
    anomalies = [
        {
            "kind": "spike",
            "step": step,
            "loss": 9.0,
            "grad_norm": 1.0,
            "keys": [],
            "suspects": [],
            "time": 1.0,
        }
        for step in (3, 5)
    ]
    write_rows(tmp_path, run_folder.ANOMALIES, *anomalies)
    earlier = read_earlier_starts(str(tmp_path), 4)
    assert earlier.began == 100.0
    assert [row["step"] for row in earlier.anomalies] == [3]
