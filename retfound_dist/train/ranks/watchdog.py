"""Ends a process that cannot go on: when a step takes for ever, or torchrun is gone.

Every rank has a watchdog. A hang of one rank stops them all, so each prints its stacks, and all leave with an
error for the scheduler to start them again. (Stacks hold code positions, never data.)
"""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from retfound_dist.errors import RetfoundError
from retfound_dist.runtime.world import World

HUNG, ORPHANED = 3, 4
"""Exit codes."""
LOOK_S = 1.0
"""Seconds between two looks."""
LATE_S = 10.0
"""Seconds after a hang should have been seen at which the process is ended without Python's help."""
# A file, because an exit code does not get through: torchrun leaves with 1 whatever its ranks leave with, and
# of a killed process there is none.
AGAIN = "RETFOUND_START_AGAIN"
"""Environment variable: a file that is there while another start should follow (pretrain.sbatch)."""


def ask_for_another_start() -> None:
    """Tell the script that started this to start the run again, should it end now."""
    if path := os.environ.get(AGAIN):
        with suppress(OSError), open(path, "a"):
            pass


def want_no_other_start() -> None:
    """Tell the script that started this that the run is over, or would fail again in the same way."""
    if path := os.environ.get(AGAIN):
        with suppress(OSError):
            os.unlink(path)


def would_fail_again(error: BaseException) -> bool:
    """Whether another start would end the same way: not where a store or a disk failed, or was the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RetfoundError) and not cause.lasting:
            return False
        cause = cause.__cause__
    return True


def record_restart_wish(alike: bool) -> None:
    """Tell the script that started this whether another start is of use, after an explained error.

    `alike`: another start would end the same way.
    """
    # An error of a store takes no wish back. A job that Slurm has started again had done steps before, and it
    # shall outlive a store that fails still.
    if alike:
        want_no_other_start()
    elif os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0"):
        ask_for_another_start()


class Watchdog:
    """A thread beside the training loop; `step` tells it that all is well."""

    def __init__(self, world: World, minutes: float) -> None:
        """`minutes`: the longest time for one step; 0: any."""
        self._world, self._longest = world, 60 * minutes
        self._done, self._at = 0, math.inf
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch for the launcher from now on, for steps from the first call of `step` on."""
        self._thread.start()

    def step(self, done: int) -> None:
        """Note that so many steps are done."""
        self._done, self._at = done, time.monotonic()
        self._arm()

    @property
    def done(self) -> int:
        """The last step that this rank has done."""
        return self._done

    @contextmanager
    def paused(self, grace_s: float = 0.0) -> Iterator[None]:
        """Around work of this rank alone that may take long and has a time limit of its own.

        Until the next step there are `grace_s` seconds more: other ranks may still be at such work.
        """
        self._at = math.inf
        faulthandler.cancel_dump_traceback_later()
        yield
        self._at = time.monotonic() + grace_s
        self._arm(grace_s)

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, grace_s: float = 0.0) -> None:
        # For a hang in foreign code that holds Python's lock: there no Python thread runs, this one neither.
        # faulthandler has a thread in C.
        if self._longest:
            late = self._longest + grace_s + LATE_S
            faulthandler.dump_traceback_later(late, exit=True, file=sys.stderr)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            # A killed torchrun leaves its ranks behind. They would hold GPUs, port and lock for ever.
            if self._world.launcher and os.getppid() != self._world.launcher:
                self._leave(ORPHANED, "torchrun is gone: leaving, so that another may start")
            since = time.monotonic() - self._at
            if self._longest and since > self._longest:
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                ask_for_another_start()
                self._leave(
                    HUNG,
                    f"no step for {since / 60:.1f} min (train.hang_minutes) after step {self._done}: "
                    "the stacks are above; leaving with an error so that the job is started again",
                )

    def _leave(self, code: int, reason: str) -> None:
        print(f"retfound: rank {self._world.rank}: {reason}", file=sys.stderr, flush=True)
        os._exit(code)
