"""A run's folder: its config, its metrics, and what may change when it is started again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from retfound_dist import storage
from retfound_dist.config import differences
from retfound_dist.errors import RunConflictError

CONFIG, METRICS = "config.json", "metrics.jsonl"
HOW = (
    "run.url",
    "data.workers",
    "data.cache_dir",
    "data.cache_gb",
    "data.patience_s",
    "data.bad_sample_budget",
    "train.micro_batch",
    "train.zero_stage",
    "train.log_every",
    "train.stop_at_step",
    "train.activation_checkpointing",
    "train.threads",
    "checkpoint.",
)
"""Keys that say how a run is carried out, never what it computes: free to change on a restart."""


def check_same_run(url: str, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds this run already; RunConflictError when it holds another one."""
    where = storage.join(url, CONFIG)
    if not storage.exists(where):
        return False
    changed = [d for d in differences(storage.read_json(where), config) if not d[0].startswith(HOW)]
    if changed:
        shown = ", ".join(f"{key} was {old!r} and is now {new!r}" for key, old, new in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise RunConflictError(
            f"{url} holds another run ({shown}{more}): "
            "start this one at a run.url of its own, or undo the change"
        )
    return True


def write_config(url: str, config: Mapping[str, Any]) -> None:
    """Put the resolved config into the run's folder."""
    storage.write_json(storage.join(url, CONFIG), config)


def read_metrics(url: str) -> list[dict[str, Any]]:
    """The run's logged steps in order, each once: of a step done twice the later line counts."""
    where = storage.join(url, METRICS)
    if not storage.exists(where):
        return []
    steps: dict[int, dict[str, Any]] = {}
    for line in _whole_lines(storage.read_bytes(where)):
        row = json.loads(line)
        steps[row["step"]] = row
    return [steps[step] for step in sorted(steps)]


def _whole_lines(data: bytes) -> list[bytes]:
    """Lines that were written to their end; a killed run may leave a part of one."""
    return [line for line in data[: data.rfind(b"\n") + 1].splitlines() if line.endswith(b"}")]


class MetricsLog:
    """Appends lines to metrics.jsonl: in place on a disk, whole on an object store."""

    def __init__(self, url: str) -> None:
        self._url = storage.join(url, METRICS)
        self._lines = _whole_lines(storage.read_bytes(self._url)) if storage.exists(self._url) else []
        self._local = storage.local_path(self._url) if storage.is_local(self._url) else None
        if self._local and os.path.exists(self._local):
            storage.write_bytes(self._url, self._content())

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one object as a line."""
        line = json.dumps(row, allow_nan=False).encode()
        self._lines.append(line)
        if self._local:
            os.makedirs(os.path.dirname(self._local) or ".", exist_ok=True)
            with open(self._local, "ab") as file:
                file.write(line + b"\n")
        else:
            storage.write_bytes(self._url, self._content())

    def _content(self) -> bytes:
        return b"".join(line + b"\n" for line in self._lines)
