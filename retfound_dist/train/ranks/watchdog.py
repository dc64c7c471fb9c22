"""Ends a process that hangs: a step does not end, or torchrun is gone.

Every rank has a watchdog. If one rank hangs, all ranks wait. Then each prints its stacks and leaves with an
error, and the scheduler starts them again. Stacks contain positions in the code, never data.
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
from retfound_dist.train.ranks.collective_trace import WRITE_S, record_hang

HUNG, ORPHANED = 3, 4
"""Exit codes."""
CHECK_S = 1.0
"""Seconds between two checks."""
C_THREAD_DELAY_S = 10.0
"""Seconds after the limit at which a thread in C ends the process, if the Python thread did not."""
# A file, because the exit code is lost: torchrun always exits with 1, and a killed process has none.
RESTART_FILE_VARIABLE = "RETFOUND_START_AGAIN"
"""Environment variable of pretrain.sbatch and pod.sh: a file that exists while another start is wanted."""
RESTART_AFTER_STOP_VARIABLE = "RETFOUND_START_AGAIN_AFTER_STOP"
"""Environment variable of kubernetes/pod.sh: a run that is asked to stop is not cancelled, only moved."""


def request_restart() -> None:
    """Tell the batch script to start the run again if it ends now."""
    if path := os.environ.get(RESTART_FILE_VARIABLE):
        with suppress(OSError), open(path, "a"):
            pass


def cancel_restart() -> None:
    """Tell the batch script not to start the run again: it is over, or would fail in the same way."""
    if path := os.environ.get(RESTART_FILE_VARIABLE):
        with suppress(OSError):
            os.unlink(path)


def restart_after_stop() -> bool:
    """Whether a run that was asked to stop should be started again."""
    return bool(os.environ.get(RESTART_AFTER_STOP_VARIABLE))


def would_fail_again(error: BaseException) -> bool:
    """Whether another start would fail in the same way: not if a store or a disk failed or was the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RetfoundError) and not cause.is_permanent:
            return False
        cause = cause.__cause__
    return True


def record_restart(lasting: bool) -> None:
    """After an explained error, tell the batch script whether to start the run again.

    `lasting`: another start would fail in the same way.
    """
    # An error of a store does not remove an earlier request. A job that Slurm has started again has made
    # progress before, so it is worth another start while the store still fails.
    if lasting:
        cancel_restart()
    elif os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0"):
        request_restart()


class Watchdog:
    """A thread beside the training loop, which calls `step_done` after each step."""

    def __init__(self, world: World, minutes: float, run_url: str = "") -> None:
        """`minutes`: the longest time for one step; 0: no limit. `run_url`: where the collectives are written
        that a rank that hangs took part in; empty: nowhere."""
        self._world, self._limit_s, self._run_url = world, 60 * minutes, run_url
        self._last_step, self._last_time = 0, math.inf
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch the launcher from now on, and steps from the first call of `step_done` on."""
        self._thread.start()

    def step_done(self, step: int) -> None:
        """Note the end of a step; 0 before the first one."""
        self._last_step, self._last_time = step, time.monotonic()
        self._arm()

    @property
    def last_step(self) -> int:
        """The last step that this rank has done."""
        return self._last_step

    @contextmanager
    def paused(self, grace_s: float = 0.0) -> Iterator[None]:
        """Pause during long work of this rank alone that has its own time limit.

        The next step gets `grace_s` more seconds: other ranks may still do such work.
        """
        self._last_time = math.inf
        faulthandler.cancel_dump_traceback_later()
        yield
        self._last_time = time.monotonic() + grace_s
        self._arm(grace_s)

    def stop(self) -> None:
        """Stop watching."""
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, grace_s: float = 0.0) -> None:
        # For a hang in a library that holds Python's global lock: then no Python thread runs, not even this
        # one. faulthandler's thread is in C.
        if self._limit_s:
            late = self._limit_s + grace_s + C_THREAD_DELAY_S
            faulthandler.dump_traceback_later(late, exit=True, file=sys.stderr)

    def _watch(self) -> None:
        """The thread's loop: end this process when torchrun is gone or no step ends in time."""
        while not self._ended.wait(CHECK_S):
            # The ranks of a killed torchrun stay alive. They would hold GPUs, port and lock for ever.
            if self._world.launcher and os.getppid() != self._world.launcher:
                self._leave(ORPHANED, "torchrun is gone: leaving, so that the run can be started again")
            since = time.monotonic() - self._last_time
            if self._limit_s and since > self._limit_s:
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                request_restart()
                if self._run_url:
                    # The thread in C would end this process while it writes.
                    self._arm(WRITE_S)
                    trace = record_hang(self._run_url, self._last_step, self._world.rank)
                    print(f"retfound: rank {self._world.rank}: {trace}", file=sys.stderr, flush=True)
                self._leave(
                    HUNG,
                    f"no step for {since / 60:.1f} min (train.hang_minutes) after step {self._last_step}: "
                    "the stacks are above; leaving with an error so that the job is started again",
                )

    def _leave(self, code: int, reason: str) -> None:
        print(f"retfound: rank {self._world.rank}: {reason}", file=sys.stderr, flush=True)
        os._exit(code)
