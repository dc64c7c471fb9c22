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

# An object store appends nothing: each flush sends a whole object.
FLUSH_S = 15.0
"""Seconds that rows for an object store may wait."""
# Seldom is enough, for a reader of the summary adds what the logs have gained since.
SUMMARY_S = 15.0
"""Least seconds between two writes of the run's summary."""


class RunLogger:
    """The logs of one run, for rank 0; nothing here waits for the store but `close`."""

    def __init__(self, run_url: str, uploads: UploadProcess, patience_s: float) -> None:
        self._url, self._uploads, self._patience_s = run_url, uploads, patience_s
        self._pause = 0.0 if storage.is_local(run_url) else FLUSH_S
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        self._flushed = self._summed = 0.0
        self._pending: list[Future[None]] = []
        self._fault = ""
        # A thread writes too: it logs the failure of another rank (`rank_failures.py`).
        self._one = threading.RLock()

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to one of the logs."""
        with self._one:
            self._rows.setdefault(name, []).append(row)
            if time.monotonic() - self._flushed >= self._pause:
                self.flush()

    def event(self, kind: str, **facts: Any) -> None:
        """Add a line to events.jsonl."""
        self.write(run_folder.EVENTS, {"event": kind, "time": time.time(), **facts})

    def flush(self) -> None:
        """Hand over all lines. What the upload process is asked for later, a commit say, comes after them."""
        with self._one:
            for name, rows in self._rows.items():
                self._pending.append(
                    self._uploads.submit(upload_process.append, self._url, name, rows, self._patience_s)
                )
            self._rows, self._flushed = {}, time.monotonic()
            if self._flushed - self._summed >= SUMMARY_S:
                self._refresh_summary()

    def _refresh_summary(self) -> None:
        # Its outcome is not looked at: without a summary nothing is lost, readers go by the logs.
        self._summed = time.monotonic()
        self._uploads.submit(upload_process.refresh_summary, self._url)

    def fault(self) -> str:
        """Why lines could not be written; empty when all is well."""
        # The first fault stays: later ones follow from it.
        ended = [write for write in self._pending if write.done()]
        self._pending = [write for write in self._pending if not write.done()]
        self._fault = self._fault or next(filter(None, map(upload_process.failure_text, ended)), "")
        return self._fault

    def close(self, longest_s: float | None = None) -> str:
        """Wait until all is written, at most `longest_s` seconds; gives the fault."""
        self.flush()
        self._refresh_summary()
        wait(self._pending, timeout=longest_s)
        return self.fault()
