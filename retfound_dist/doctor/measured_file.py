"""Records what the doctor has measured in `measured.json` beside the runs, where `retfound plan` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from retfound_dist.doctor.check_result import CheckResult
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.errors import RecordError
from retfound_dist.io import storage
from retfound_dist.model.devices import device_name
from retfound_dist.plan.measured_rates import MeasuredFile, measured_url
from retfound_dist.records import json_reader
from retfound_dist.runtime.versions import installed

MOST_RESULTS = 100
"""Older results are dropped."""


def measured_result(checkup: Checkup, checks: Sequence[CheckResult], rate: float | None) -> dict[str, Any]:
    """One result, in the form of a benchmark's. `rate`: images/s of all ranks in the trial run."""
    config, ranks = checkup.config, checkup.group.world.size
    rows = [
        {"label": check.name, "value": check.value, "unit": check.unit}
        for check in checks
        if check.value is not None
    ]
    if rate is not None:
        label = f"ours, {ranks} ranks of {checkup.hosts} hosts, ZeRO {config.train.zero_stage}"
        rows.append({"label": label, "value": rate / ranks, "unit": "images/s"})
    return {
        "name": "train",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": device_name(checkup.group.device),
        "command": f"retfound doctor --model {config.model.name}",
        "versions": installed("retfound-dist", "torch", "deepspeed"),
        "ranks": ranks,
        "rows": rows,
    }


def record(checkup: Checkup, checks: Sequence[CheckResult], rate: float | None) -> str:
    """Add a result to the file; returns its URL. A damaged file is replaced: it can be measured again."""
    where = measured_url(checkup.config.run.url)
    results: list[Any] = []
    if storage.exists(where):
        try:
            results = list(json_reader.read(where, MeasuredFile, "it is replaced")["results"])
        except RecordError:
            results = []
    results = [*results, measured_result(checkup, checks, rate)][-MOST_RESULTS:]
    storage.write_json(where, {"results": results})
    return where
