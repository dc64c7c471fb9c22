"""Writes a run's logs: metrics.jsonl, events.jsonl, anomalies.jsonl, and its summary."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any

from retfound_dist.formats import run_folder
from retfound_dist.io import storage
from retfound_dist.train.ranks import upload_process
from retfound_dist.train.ranks.upload_process import UploadProcess

# An object store cannot append: each flush sends a whole object.
FLUSH_S = 15.0
"""Seconds between two flushes to an object store."""
# Rarely is enough: a reader of the summary adds the later rows of the logs.
SUMMARY_S = 15.0
"""Shortest time between two writes of the run's summary, in seconds."""


class RunLogger:
    """The logs of one run, for rank 0; only `close` waits for the store."""

    def __init__(self, run_url: str, uploads: UploadProcess, patience_s: float) -> None:
        self._url, self._uploads, self._patience_s = run_url, uploads, patience_s
        self._pause = 0.0 if storage.is_local(run_url) else FLUSH_S
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        self._flushed_at = self._summarised_at = 0.0
        self._pending: list[Future[None]] = []
        self._fault = ""
        # A thread also writes: it logs the failure of another rank (`rank_failures.py`).
        self._lock = threading.RLock()

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to one of the logs."""
        with self._lock:
            self._rows.setdefault(name, []).append(row)
            if time.monotonic() - self._flushed_at >= self._pause:
                self.flush()

    def event(self, kind: str, **fields: Any) -> None:
        """Add a line to events.jsonl."""
        self.write(run_folder.EVENTS, {"event": kind, "time": time.time(), **fields})

    def flush(self) -> None:
        """Submit all rows. Later calls of the upload process, such as a commit, run after them."""
        with self._lock:
            for name, rows in self._rows.items():
                self._pending.append(
                    self._uploads.submit(upload_process.append_rows, self._url, name, rows, self._patience_s)
                )
            self._rows, self._flushed_at = {}, time.monotonic()
            if self._flushed_at - self._summarised_at >= SUMMARY_S:
                self._refresh_summary()

    def _refresh_summary(self) -> None:
        # Its result is not checked: without a summary nothing is lost, because readers use the logs.
        self._summarised_at = time.monotonic()
        self._uploads.submit(upload_process.refresh_summary, self._url)

    def fault(self) -> str:
        """Why rows could not be written; empty if there was no error."""
        # The first fault is kept: later ones follow from it.
        finished = [write for write in self._pending if write.done()]
        self._pending = [write for write in self._pending if not write.done()]
        self._fault = self._fault or next(filter(None, map(upload_process.failure_text, finished)), "")
        return self._fault

    def close(self, longest_s: float | None = None) -> str:
        """Wait until all rows are written, at most `longest_s` seconds; returns the fault."""
        self.flush()
        self._refresh_summary()
        wait(self._pending, timeout=longest_s)
        return self.fault()
