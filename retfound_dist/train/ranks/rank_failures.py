"""A rank that fails reports its error to the others: rank 0 prints and logs it, and all ranks leave.

Reports go through the process group's key-value store, on a separate connection: the group itself may wait in
a collective that never ends. A thread of each rank reads the reports of the others. Ranks exit without
destroying the group, which would wait for such a collective.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from retfound_dist.errors import RetfoundError
from retfound_dist.io import slow_store
from retfound_dist.runtime.unexpected_error import EXIT_CODE
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.watchdog import Watchdog, record_restart, would_fail_again

POLL_S = 0.5
"""Seconds between two reads of the store."""
# A rank that lost a connection may notice it before the failed rank has written its report.
REASON_WAIT_S = 5.0
"""Seconds to wait for the report of a lost rank, or for rank 0 to print the failures."""
STORE_TIMEOUT_S = 10.0
"""Longest wait for one answer of the store, in seconds."""


@dataclass(frozen=True)
class Failure:
    """Why a rank cannot go on."""

    rank: int
    host: str
    step: int
    """The last one that the rank had done."""
    error: str
    """One line."""
    exit_code: int = EXIT_CODE
    explained: bool = False
    """Whether it is a RetfoundError, whose message says what to do."""
    lasting: bool = False
    """Whether another start would fail in the same way; after a fault of a store or a disk it may not."""
    traceback: str = ""
    """Of all other errors."""

    def event_fields(self) -> dict[str, Any]:
        """For events.jsonl."""
        fields = asdict(self)
        logged = ("rank", "host", "step", "error", "traceback")
        return {name: fields[name] for name in logged if fields[name] != ""}

    def describe(self) -> str:
        """One line for the user."""
        more = " (events.jsonl has the traceback, --debug shows it)" if self.traceback else ""
        return f"rank {self.rank} ({self.host}): {self.error}{more}"


class RankFailures:
    """Reports this rank's failure to the others and watches for theirs, once the ranks have joined."""

    def __init__(
        self,
        group: RankGroup,
        watchdog: Watchdog,
        clear_display: Callable[[], None] = lambda: None,
        debug: bool = False,
    ) -> None:
        """Every rank calls it. `watchdog` knows the step. `clear_display` ends the progress display.

        `debug`: print tracebacks.
        """
        self._world, self._watchdog = group.world, watchdog
        self._clear_display, self._debug = clear_display, debug
        self.exit_callbacks: list[Callable[[list[Failure]], None]] = []
        """Called by rank 0 before it exits, last added first: they log the failures and release the lock."""
        self._closed = threading.Event()
        # The failing code and the thread may exit at the same time; only one of them may print.
        self._lock = threading.RLock()
        self._store: Any = None
        self._store_lost = False
        """Whether the store no longer answers."""
        if group.world.size > 1:
            # torchrun keeps its store when it restarts the ranks. Without a new name they would read the
            # failures of the start before.
            name = group.broadcast(uuid.uuid4().hex)
            self._failures_key, self._printed_key = f"retfound/{name}/failures", f"retfound/{name}/printed"
            self._store = _connect()
            self._thread = threading.Thread(target=self._watch, name="failures", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching, after a run without failure."""
        # Wait for the thread: a read of the store while Python exits would abort the process.
        self._closed.set()
        if self._store is not None:
            self._thread.join(STORE_TIMEOUT_S)

    def report_and_exit(self, error: BaseException) -> None:
        """Report this rank's error and exit. A single rank returns, and the caller raises."""
        failure = self._make_failure(error)
        with self._lock:
            if self._store is None:
                self._run_exit_callbacks([failure])
                return
            # A lost connection follows from another rank's failure. It is reported only if no other rank
            # reports the cause.
            failures = self._wait_for(self._failures_key) if _is_lost_connection(error) else []
            if not failures:
                failures = self._send_report(failure)
            self._print_and_exit(failures or [failure], failure)

    def _watch(self) -> None:
        """Run by the thread: exit when another rank reports a failure."""
        # The main thread cannot: it may wait in a collective for the rank that has failed.
        while not (self._store_lost or self._closed.wait(POLL_S)):
            if failures := self._read_reports():
                # Ranks with the same fault fail at nearly the same time: wait for their reports too.
                time.sleep(POLL_S / 5)
                with self._lock:
                    if not self._closed.is_set():
                        self._print_and_exit(self._read_reports() or failures, None)

    def _print_and_exit(self, failures: list[Failure], own_failure: Failure | None) -> NoReturn:
        """End this process; rank 0 prints the failures first, and the others wait for that."""
        self._clear_display()
        first = failures[0]
        if first.explained:
            record_restart(first.lasting)
        if self._world.is_main:
            self._print(failures, own_failure)
            with suppress(RuntimeError):
                self._store.set(self._printed_key, "yes")
            self._run_exit_callbacks(failures)
            # Without torchrun the store is in this process: the others must read it before this one exits.
            time.sleep(2 * POLL_S)
        elif not self._wait_for(self._printed_key) and own_failure in failures:
            self._print([own_failure], None)  # rank 0 has not printed it: it may have died
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(first.exit_code)

    def _run_exit_callbacks(self, failures: list[Failure]) -> None:
        slow_store.mute()  # the reason of the failure must be the last line on the terminal
        for callback in reversed(self.exit_callbacks):
            callback(failures)

    def _print(self, failures: list[Failure], own_failure: Failure | None) -> None:
        """Print each error once, with the rank that had it."""
        # If rank 0 has an explained error, all ranks have it: it is printed without a rank.
        shared = set()
        if own_failure and own_failure in failures and own_failure.explained:
            shared = {own_failure.error}
        lines = {f.error: f.error if f.error in shared else f.describe() for f in reversed(failures)}
        for failure in failures:
            if line := lines.pop(failure.error, ""):
                if self._debug and failure.traceback:
                    print(failure.traceback, file=sys.stderr, end="")
                print(f"retfound: {line}", file=sys.stderr, flush=True)

    def _make_failure(self, error: BaseException) -> Failure:
        text = " ".join(str(error).split())
        where = self._world.rank, platform.node(), self._watchdog.last_step
        if isinstance(error, RetfoundError):
            return Failure(*where, text, error.exit_code, explained=True, lasting=would_fail_again(error))
        trace = "".join(traceback.format_exception(error))
        if _is_lost_connection(error):
            text = "another rank ended without a report: it was killed, perhaps because memory ran out"
        else:
            text = f"{type(error).__name__}: {text[:1000]}"
        return Failure(*where, text, traceback=trace)

    def _send_report(self, failure: Failure) -> list[Failure]:
        """Send a report to the others; returns all reports."""
        with suppress(RuntimeError):
            self._store.append(self._failures_key, json.dumps(asdict(failure)) + "\n")
        return self._read_reports()

    def _read_reports(self) -> list[Failure]:
        """All reports so far, the first one first; none if the store no longer answers."""
        try:
            if self._store.check([self._failures_key]):
                return [
                    Failure(**json.loads(line)) for line in self._store.get(self._failures_key).splitlines()
                ]
        except RuntimeError:
            self._store_lost = True
        return []

    def _wait_for(self, key: str) -> list[Failure]:
        """Wait for a key, then return all reports; none if it does not come or the store does not answer."""
        deadline = time.monotonic() + REASON_WAIT_S
        with suppress(RuntimeError):
            while not self._store.check([key]):
                if time.monotonic() > deadline:
                    return []
                time.sleep(0.1)
        return self._read_reports()


def _connect() -> Any:
    """A separate connection to the store of the process group."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=STORE_TIMEOUT_S))


def _is_lost_connection(error: BaseException) -> bool:
    """Whether an error only says that the connection to another rank was lost."""
    # torch 2.15 has a class only for some of them: the others are recognised by their message.
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "connection closed")
    )
