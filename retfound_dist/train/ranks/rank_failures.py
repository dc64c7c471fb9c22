"""A rank that fails tells the others: its error reaches rank 0's terminal and events.jsonl, and all leave.

Ranks tell each other over the process group's store, on a connection of their own: the group itself may be in
the middle of a collective that will never end. Each rank has a thread that looks there. The process is left
without ending the group, which would wait for such a collective.
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
from retfound_dist.train.ranks.watchdog import Watchdog, ends_alike, settle_another_start

LOOK_S = 0.5
"""Between two looks at the store."""
WAIT_S = 5.0
"""So long a rank that has lost another waits for the reason, and one that has failed for rank 0 to say so."""
STORE_S = 10.0
"""Longest time for one answer of the store."""


@dataclass(frozen=True)
class Failure:
    """Why a rank cannot go on."""

    rank: int
    host: str
    step: int
    """The last one it had done."""
    error: str
    """One line."""
    exit_code: int = EXIT_CODE
    explained: bool = False
    """Whether it is one of our own errors: what to do is in it."""
    lasting: bool = False
    """Whether another start would end the same way; where a store or a disk failed it may not."""
    traceback: str = ""
    """Of an error that is not our own."""

    def facts(self) -> dict[str, Any]:
        """For events.jsonl."""
        facts = asdict(self)
        told = ("rank", "host", "step", "error", "traceback")
        return {name: facts[name] for name in told if facts[name] != ""}

    def line(self) -> str:
        """For a person."""
        more = " (events.jsonl has the traceback, --debug shows it)" if self.traceback else ""
        return f"rank {self.rank} ({self.host}): {self.error}{more}"


class RankFailures:
    """What ranks know of each other's failures; every rank has one from when they have met."""

    def __init__(
        self,
        group: RankGroup,
        watchdog: Watchdog,
        clear: Callable[[], None] = lambda: None,
        debug: bool = False,
    ) -> None:
        """Every rank calls it. `watchdog` knows the step; `clear` ends what would come between last words.

        `debug`: show tracebacks.
        """
        self._world, self._watchdog, self._clear, self._debug = group.world, watchdog, clear, debug
        self.at_end: list[Callable[[list[Failure]], None]] = []
        """Rank 0's: writes down why, lets go of what the run holds; the last one first."""
        self._ended = threading.Event()
        self._one = threading.RLock()
        self._store: Any = None
        self._gone = False
        """Whether the store does not answer any more."""
        if group.world.size > 1:
            name = group.share(uuid.uuid4().hex)  # the store may be older than this start
            self._said, self._told = f"retfound/{name}/failures", f"retfound/{name}/told"
            self._store = _connect()
            self._thread = threading.Thread(target=self._look, name="failures", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """All went well. The thread is waited for: asking the store while Python ends, it would abort."""
        self._ended.set()
        if self._store is not None:
            self._thread.join(STORE_S)

    def leave(self, error: BaseException) -> None:
        """Tell of this rank's error and leave; returns where there are no other ranks: the caller raises."""
        own = self._own(error)
        with self._one:
            if self._store is None:
                self._close([own])
                return
            known = self._wait(self._said) if _lost_another(error) else self._known()
            if not (_lost_another(error) and known):
                known = self._say(own)
            self._leave_with(known or [own], own)

    def _look(self) -> None:
        """The thread: another rank's failure ends this one, which may be waiting for it in a collective."""
        while not (self._gone or self._ended.wait(LOOK_S)):
            if known := self._known():
                time.sleep(LOOK_S / 5)  # ranks that fail alike do so together
                with self._one:
                    if not self._ended.is_set():
                        self._leave_with(self._known() or known, None)

    def _leave_with(self, known: list[Failure], own: Failure | None) -> NoReturn:
        self._clear()
        first = known[0]
        if first.explained:
            settle_another_start(first.lasting)
        if self._world.is_main:
            self._print(known, own)
            with suppress(RuntimeError):
                self._store.set(self._told, "yes")
            self._close(known)
            time.sleep(2 * LOOK_S)  # the store may end with this process: the others shall have looked
        elif not self._wait(self._told) and own in known:
            self._print([own], None)  # rank 0 has not: it may be gone
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(first.exit_code)

    def _close(self, known: list[Failure]) -> None:
        slow_store.be_silent()  # who closes hurries, and the reason is the last word
        for close in reversed(self.at_end):
            close(known)

    def _print(self, known: list[Failure], own: Failure | None) -> None:
        """Each error once; what rank 0 says too needs no rank: all ranks say it."""
        mine = {own.error} if own and own in known and own.explained else set()
        lines = {f.error: f"retfound: {f.error if f.error in mine else f.line()}" for f in reversed(known)}
        for failure in known:
            if line := lines.pop(failure.error, ""):
                if self._debug and failure.traceback:
                    print(failure.traceback, file=sys.stderr, end="")
                print(line, file=sys.stderr, flush=True)

    def _own(self, error: BaseException) -> Failure:
        text = " ".join(str(error).split())
        where = self._world.rank, platform.node(), self._watchdog.done
        if isinstance(error, RetfoundError):
            return Failure(*where, text, error.exit_code, explained=True, lasting=ends_alike(error))
        trace = "".join(traceback.format_exception(error))
        if _lost_another(error):
            text = "another rank ended without a word: it was killed, perhaps because memory ran out"
        else:
            text = f"{type(error).__name__}: {text[:1000]}"
        return Failure(*where, text, traceback=trace)

    def _say(self, own: Failure) -> list[Failure]:
        """Tell the others; gives what all have told."""
        with suppress(RuntimeError):
            self._store.append(self._said, json.dumps(asdict(own)) + "\n")
        return self._known()

    def _known(self) -> list[Failure]:
        """What ranks have told so far, the first one first; nothing where the store is gone."""
        try:
            if self._store.check([self._said]):
                return [Failure(**json.loads(line)) for line in self._store.get(self._said).splitlines()]
        except RuntimeError:
            self._gone = True
        return []

    def _wait(self, key: str) -> list[Failure]:
        """What is known once a key is there; nothing where it does not come, or the store is gone."""
        until = time.monotonic() + WAIT_S
        with suppress(RuntimeError):
            while not self._store.check([key]):
                if time.monotonic() > until:
                    return []
                time.sleep(0.1)
        return self._known()


def _connect() -> Any:
    """A connection of this rank's own to the store that the process group met at."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=STORE_S))


def _lost_another(error: BaseException) -> bool:
    """Whether it is only the end of a connection to another rank: the reason is there."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "connection closed")
    )
