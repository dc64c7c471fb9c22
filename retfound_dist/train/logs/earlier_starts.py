"""Reads what earlier starts of a run wrote to its logs, up to the step from which this start continues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retfound_dist.estimate import save_time
from retfound_dist.estimate.save_time import SaveTime
from retfound_dist.formats import run_folder
from retfound_dist.formats.log_rows import each_step_once, read_log
from retfound_dist.train.logs.telemetry import process_began


@dataclass(frozen=True)
class EarlierStarts:
    """Sums over the earlier starts of a run; later steps were discarded by the resume, and do not count."""

    anomalies: list[dict[str, Any]]
    """Rows of anomalies.jsonl."""
    useful_s: float
    """Seconds of the steps, each step counted once."""
    began: float
    """Unix time of the run's first start."""
    save_time: SaveTime | None
    """As measured; None if the run has committed no checkpoint yet."""
    log_faults: list[str]
    """Messages on bad lines, which were left out."""


def read_earlier_starts(run_url: str, start_step: int) -> EarlierStarts:
    """Read the run's logs up to the step after which this start continues."""
    names = (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES)
    logs = {name: read_log(run_url, name) for name in names}
    rows = [row for row in each_step_once(logs[run_folder.METRICS].rows) if row["step"] <= start_step]
    steps = [0, *(row["step"] for row in rows)]
    # A row's `step_s` is the mean over the steps since the row before it.
    useful_s = sum(
        (step - last) * row["step_s"] for row, step, last in zip(rows, steps[1:], steps, strict=False)
    )
    events = logs[run_folder.EVENTS].rows
    starts = [row["began"] for row in events if row["event"] == "start"]
    return EarlierStarts(
        anomalies=[row for row in logs[run_folder.ANOMALIES].rows if row["step"] <= start_step],
        useful_s=useful_s,
        began=min([*starts, process_began()]),
        save_time=save_time.measured_save_time(events, rows[-1]["step_s"] if rows else 0.0),
        log_faults=[log.fault for log in logs.values() if log.fault],
    )
