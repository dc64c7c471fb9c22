"""A rank that fails reports its error to the others: rank 0 prints and logs it, and all ranks leave.

Reports go over the process group's store, on a connection of their own, because the group itself may be in
the middle of a collective that will never end. A thread of each rank looks there for reports of others. Ranks
leave without ending the group, which would wait for such a collective.
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
from retfound_dist.train.ranks.watchdog import Watchdog, record_restart_wish, would_fail_again

LOOK_S = 0.5
"""Seconds between two looks at the store."""
# A rank whose connection broke may fail before the one that broke it has written its report.
WAIT_S = 5.0
"""Seconds that a rank which has lost another waits for the reason, or one that failed for rank 0 to print
it."""
STORE_S = 10.0
"""Most seconds for one answer of the store."""


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
    """Whether it is one of our own errors, which say what to do."""
    lasting: bool = False
    """Whether another start would fail in the same way; after a fault of a store or a disk it may not."""
    traceback: str = ""
    """Of an error that is not our own."""

    def facts(self) -> dict[str, Any]:
        """For events.jsonl."""
        facts = asdict(self)
        logged = ("rank", "host", "step", "error", "traceback")
        return {name: facts[name] for name in logged if facts[name] != ""}

    def line(self) -> str:
        """For a person."""
        more = " (events.jsonl has the traceback, --debug shows it)" if self.traceback else ""
        return f"rank {self.rank} ({self.host}): {self.error}{more}"


class RankFailures:
    """This rank's part in reporting failures, its own and those of others; from when the ranks have met."""

    def __init__(
        self,
        group: RankGroup,
        watchdog: Watchdog,
        clear: Callable[[], None] = lambda: None,
        debug: bool = False,
    ) -> None:
        """Every rank calls it. `watchdog` knows the step; `clear` takes away what would hide the last lines.

        `debug`: show tracebacks.
        """
        self._world, self._watchdog, self._clear, self._debug = group.world, watchdog, clear, debug
        self.at_end: list[Callable[[list[Failure]], None]] = []
        """What rank 0 calls before it leaves: logs the failures, releases the lock; the last one added
        first."""
        self._ended = threading.Event()
        # The failing code and the thread may want to leave at once; only one of them may print and close.
        self._one = threading.RLock()
        self._store: Any = None
        self._gone = False
        """Whether the store does not answer any more."""
        if group.world.size > 1:
            # torchrun keeps its store when it starts ranks again: without a name of its own a start would
            # read the failures of the one before.
            name = group.share(uuid.uuid4().hex)
            self._failures_key, self._printed_key = f"retfound/{name}/failures", f"retfound/{name}/told"
            self._store = _connect()
            self._thread = threading.Thread(target=self._look, name="failures", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """All went well."""
        # The thread is waited for: a question to the store while Python ends would abort the process.
        self._ended.set()
        if self._store is not None:
            self._thread.join(STORE_S)

    def leave(self, error: BaseException) -> None:
        """Report this rank's error and leave. Alone it returns instead: the caller raises."""
        failure = self._describe(error)
        with self._one:
            if self._store is None:
                self._close([failure])
                return
            # The end of a connection is what follows from another rank's failure: it is reported only where
            # no other rank reports the cause.
            known = self._wait(self._failures_key) if _lost_another(error) else self._read()
            if not (_lost_another(error) and known):
                known = self._report(failure)
            self._leave_with(known or [failure], failure)

    def _look(self) -> None:
        """Run by the thread: leave when another rank reports a failure."""
        # The main thread cannot: it may wait in a collective for the rank that has failed.
        while not (self._gone or self._ended.wait(LOOK_S)):
            if known := self._read():
                # Ranks with the same fault fail nearly together: their reports shall be in the list too.
                time.sleep(LOOK_S / 5)
                with self._one:
                    if not self._ended.is_set():
                        self._leave_with(self._read() or known, None)

    def _leave_with(self, known: list[Failure], of_this_rank: Failure | None) -> NoReturn:
        self._clear()
        first = known[0]
        if first.explained:
            record_restart_wish(first.lasting)
        if self._world.is_main:
            self._print(known, of_this_rank)
            with suppress(RuntimeError):
                self._store.set(self._printed_key, "yes")
            self._close(known)
            # Without torchrun the store lives in this process: the others have to have looked before it ends.
            time.sleep(2 * LOOK_S)
        elif not self._wait(self._printed_key) and of_this_rank in known:
            self._print([of_this_rank], None)  # rank 0 has not printed it: it may be gone
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(first.exit_code)

    def _close(self, known: list[Failure]) -> None:
        slow_store.be_silent()  # the reason of the failure is to be the last line on the terminal
        for close in reversed(self.at_end):
            close(known)

    def _print(self, known: list[Failure], of_this_rank: Failure | None) -> None:
        """Print each error once, with the rank that had it."""
        # An explained error that rank 0 had too is every rank's: it is printed without a rank.
        ours = of_this_rank
        shared = {ours.error} if ours and ours in known and ours.explained else set()
        lines = {f.error: f"retfound: {f.error if f.error in shared else f.line()}" for f in reversed(known)}
        for failure in known:
            if line := lines.pop(failure.error, ""):
                if self._debug and failure.traceback:
                    print(failure.traceback, file=sys.stderr, end="")
                print(line, file=sys.stderr, flush=True)

    def _describe(self, error: BaseException) -> Failure:
        text = " ".join(str(error).split())
        where = self._world.rank, platform.node(), self._watchdog.done
        if isinstance(error, RetfoundError):
            return Failure(*where, text, error.exit_code, explained=True, lasting=would_fail_again(error))
        trace = "".join(traceback.format_exception(error))
        if _lost_another(error):
            text = "another rank ended without a word: it was killed, perhaps because memory ran out"
        else:
            text = f"{type(error).__name__}: {text[:1000]}"
        return Failure(*where, text, traceback=trace)

    def _report(self, failure: Failure) -> list[Failure]:
        """Report to the others; gives all reports."""
        with suppress(RuntimeError):
            self._store.append(self._failures_key, json.dumps(asdict(failure)) + "\n")
        return self._read()

    def _read(self) -> list[Failure]:
        """All reports so far, the first one first; none where the store is gone."""
        try:
            if self._store.check([self._failures_key]):
                return [
                    Failure(**json.loads(line)) for line in self._store.get(self._failures_key).splitlines()
                ]
        except RuntimeError:
            self._gone = True
        return []

    def _wait(self, key: str) -> list[Failure]:
        """All reports once a key is there; none where it does not come, or the store is gone."""
        deadline = time.monotonic() + WAIT_S
        with suppress(RuntimeError):
            while not self._store.check([key]):
                if time.monotonic() > deadline:
                    return []
                time.sleep(0.1)
        return self._read()


def _connect() -> Any:
    """A connection of its own to the store at which the process group met."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=STORE_S))


def _lost_another(error: BaseException) -> bool:
    """Whether an error is only the end of a connection to another rank, which has the cause."""
    # Only some of them are of a class of their own (torch 2.15): the others are told by their words.
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "connection closed")
    )
