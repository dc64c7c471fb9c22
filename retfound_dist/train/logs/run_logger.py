"""What a run writes down as it goes: metrics.jsonl, events.jsonl, anomalies.jsonl, and TensorBoard's file."""

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

FLUSH_S = 15.0
"""Rows for an object store, which takes whole files, wait up to so long."""
SUMMARY_S = 15.0
"""A run's summary is written anew so often: who reads it adds what the logs have gained since."""


class RunLogger:
    """The logs of one run, for rank 0; nothing here waits for the store but `close`."""

    def __init__(self, run_url: str, uploads: UploadProcess, patience_s: float) -> None:
        self._url, self._uploads, self._patience_s = run_url, uploads, patience_s
        self._pause = 0.0 if storage.is_local(run_url) else FLUSH_S
        self._rows: dict[str, list[Mapping[str, Any]]] = {}
        self._flushed = self._summed = 0.0
        self._asked: list[Future[None]] = []
        self._fault = ""
        self._one = threading.RLock()  # a failure of another rank is written down by a thread

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
        """Have all lines written; what is committed after this is committed after them."""
        with self._one:
            for name, rows in self._rows.items():
                self._asked.append(
                    self._uploads.submit(upload_process.append, self._url, name, rows, self._patience_s)
                )
            self._rows, self._flushed = {}, time.monotonic()
            if self._flushed - self._summed >= SUMMARY_S:
                self._refresh_summary()

    def _refresh_summary(self) -> None:
        """Nobody waits for it, and without it nothing is lost."""
        self._summed = time.monotonic()
        self._uploads.submit(upload_process.refresh_summary, self._url)

    def fault(self) -> str:
        """Why lines could not be written; empty when all is well."""
        ended = [asked for asked in self._asked if asked.done()]
        self._asked = [asked for asked in self._asked if not asked.done()]
        self._fault = self._fault or next((why for why in map(upload_process.failure_text, ended) if why), "")
        return self._fault

    def close(self, longest_s: float | None = None) -> str:
        """Wait until all is written, or so long; gives the fault."""
        self.flush()
        self._refresh_summary()
        wait(self._asked, timeout=longest_s)
        return self.fault()
