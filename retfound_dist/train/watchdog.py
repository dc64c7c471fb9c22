"""A run that cannot go on by itself ends itself: when a step takes for ever, or torchrun is gone.

Every rank has one. A hang of one rank stops them all, so each shows where it stands, and all leave with
an error for the scheduler to start them again. (Stacks hold code positions, never data.)
"""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HUNG, ORPHANED = 3, 4
"""Exit codes."""
LOOK_S = 1.0


class Watchdog:
    """A thread beside the loop; `step` tells it that all is well."""

    def __init__(self, rank: int, minutes: float) -> None:
        """`minutes`: the longest time for one step; 0: any."""
        self._rank, self._longest = rank, 60 * minutes
        self._done, self._at = 0, time.monotonic()
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self, step: int) -> None:
        """Watch from now on; `step` steps are done."""
        self.step(step)
        self._thread.start()

    def step(self, done: int) -> None:
        """So many steps are done."""
        self._done, self._at = done, time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what may take long, and has a bound of its own."""
        self._at = math.inf
        yield
        self._at = time.monotonic()

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            if self._parent is not None and os.getppid() != self._parent:
                self._leave(ORPHANED, "torchrun is gone: leaving, so that another may start")
            since = time.monotonic() - self._at
            if self._longest and since > self._longest:
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._leave(
                    HUNG,
                    f"no step for {since / 60:.1f} min (train.hang_minutes) after step {self._done}: "
                    "the stacks are above; leaving with an error so that the job is started again",
                )

    def _leave(self, code: int, why: str) -> None:
        print(f"retfound: rank {self._rank}: {why}", file=sys.stderr, flush=True)
        os._exit(code)
