"""A run's logs read for people: a line that cannot be used is left out and counted, never an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from retfound_dist import runlog, storage
from retfound_dist.errors import StorageError

LIMIT = 1 << 30
"""Bytes of a log that is read; a run of 800 epochs writes some 100 MB."""
Row = dict[str, Any]

_METRICS = ("step", "epoch", "samples", "world_size", "images_per_s", "data_wait_s", "step_s")
_START = ("began", "ready", "step", "world_size", "zero_stage")
_CHECKPOINT = ("stall_s", "bytes_of_rank_0")


def read_log(url: str, name: str) -> tuple[list[Row], str]:
    """The usable lines of one of a run's logs, and a sentence about the others; empty: there are none."""
    where = storage.join(url, name)
    if not storage.exists(where):
        return [], ""
    try:
        size = storage.size(where)
        if size > LIMIT:
            return [], f"{name} has {size / 1e9:,.1f} GB and is not read"
        lines = storage.read_bytes(where).splitlines(keepends=True)
    except StorageError as error:
        return [], f"{name} is not read: {error}"
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # being written
    rows = [row for line in lines if (row := _row(line, _USABLE[name])) is not None]
    broken = len(lines) - len(rows)
    said = f"{broken:,} of {len(lines):,} lines of {name} cannot be read and are left out"
    return rows, said if broken else ""


def read_tree(url: str, name: str) -> tuple[Row, str]:
    """A JSON object of a run, and why it is left out; both empty where there is no such file."""
    where = storage.join(url, name)
    try:
        if not storage.exists(where):
            return {}, ""
        tree = storage.read_json(where) if storage.size(where) < LIMIT else None
    except (StorageError, RecursionError) as error:
        return {}, f"{name} is left out: {error}"
    return (tree, "") if isinstance(tree, dict) else ({}, f"{name} is left out: it is no JSON object")


def _row(line: bytes, usable: Callable[[Row], bool]) -> Row | None:
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and usable(row) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _numbers(row: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(row.get(key), int | float) and not isinstance(row[key], bool) for key in keys)


def _texts(row: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(row.get(key), str) for key in keys)


def _is_step(row: Row) -> bool:
    """A line of metrics.jsonl that pages can show."""
    some = ("loss", "lr", "grad_norm")
    known = _numbers(row, *_METRICS) and row["step_s"] > 0
    return known and all(key in row and (row[key] is None or _numbers(row, key)) for key in some)


def _is_event(row: Row) -> bool:
    """A start, an end, a checkpoint with what pages tell of it; or any other event."""
    wanted: Iterator[bool] = iter(
        {
            "start": [_numbers(row, *_START)],
            "end": [_numbers(row, "step"), _texts(row, "reason")],
            "checkpoint": [_numbers(row, *_CHECKPOINT)],
        }.get(str(row.get("event")), [])
    )
    return _texts(row, "event") and _numbers(row, "time") and all(wanted)


_USABLE: dict[str, Callable[[Row], bool]] = {
    runlog.METRICS: _is_step,
    runlog.EVENTS: _is_event,
    runlog.ANOMALIES: lambda row: _numbers(row, "step") and _texts(row, "kind"),
    runlog.ALARMS: lambda row: _texts(row, "message"),
}
