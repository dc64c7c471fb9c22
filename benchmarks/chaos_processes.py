"""One process of `benchmarks.chaos`: starts it, waits for its end, and checks exit code and messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.storm_checks import of_sessions
from retfound_dist.io import slow_store
from tests import ROOT

LIMIT_S = 420.0
"""A process that takes longer hangs. It is ten times the slowest job, and more than a store's patience."""
OUTLIVE_S = 20.0
"""Seconds that the processes of a job may outlive it."""
NOISE = (
    "Traceback (most recent call last)", "Exception ignored in", "exception was never retrieved",
    "Exception in thread", "Fatal Python error", "terminate called", "Unclosed ",
)  # fmt: skip
"""Messages of Python or torch that no user should see."""
NOTICE = re.compile(
    rf"^retfound: {slow_store.WAITING}|was held by|converted again|is saved, but |warning:|note:"
)
"""Lines of `retfound:` about trouble that may pass."""
_TRACKER = re.compile(
    r"(^.*resource_tracker\.py:\d+: UserWarning: .*\n(\s+warnings\.warn\(.*\n)?)"
    r"|(^Traceback \(most recent call last\):\n  File \".*multiprocessing/resource_tracker\.py\".*\n"
    r"(    .*\n)*KeyError: .*\n?)",
    re.MULTILINE,
)
"""Messages of Python after its resource tracker was killed: the new one does not know the semaphores."""


def _stdout_of(log: Path) -> Path:
    return log.with_suffix(".out")


class WatchedProcess:
    """A command in its own session, with its stderr in a file and its stdout beside it."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.killed = False
        """Whether this benchmark killed the main process."""
        self.was_hit = False
        """Whether this benchmark killed any of its processes."""
        self._log = log
        with log.open("wb") as stderr, _stdout_of(log).open("wb") as stdout:
            self._process = subprocess.Popen(
                arguments, env=env, cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            )  # fmt: skip
        self.pid, self._began = self._process.pid, time.monotonic()

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._began

    @property
    def stdout(self) -> str:
        """All of stdout so far."""
        return _stdout_of(self._log).read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """All of stderr so far."""
        return self._log.read_text(errors="replace")

    def tree(self) -> list[int]:
        """Ids of the process and of all that it started, rising."""
        return sorted(of_sessions({self.pid}))

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))
            return True
        return False

    def end(self) -> Iterator[str]:
        """Wait for it and all that it started; yields a line for each that did not end by itself."""
        if not self.wait(LIMIT_S - self.seconds):
            yield f"it hangs: after {LIMIT_S:.0f} s it has not ended"
            self._kill_all()
            return
        if running := self._still_running():
            yield f"{len(running)} processes outlive it: {'; '.join(sorted(running.values()))[:300]}"
            self._kill_all()

    def _kill_all(self) -> None:
        for pid in of_sessions({self.pid}):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._still_running()

    def _still_running(self) -> dict[int, str]:
        """Its processes that still run after a while, by id."""
        end = time.monotonic() + OUTLIVE_S
        while (running := of_sessions({self.pid})) and time.monotonic() < end:
            time.sleep(0.1)
        return running


def unreported(code: int, stderr: str, killed: bool, was_hit: bool = False) -> Iterator[str]:
    """What an ended process reported wrongly: tracebacks, strange exit codes, no error line or several."""
    if was_hit:
        stderr = _TRACKER.sub("", stderr)
    # After a kill, the messages of Python's resource tracker are expected.
    for phrase in NOISE if killed else (*NOISE, "resource_tracker:"):
        if phrase in stderr:
            yield f"it prints {phrase!r}"
    if killed and code == -signal.SIGKILL:
        return
    if code not in (0, 2, 130):
        yield f"it left with {code}"
    errors = [
        line for line in stderr.splitlines() if line.startswith("retfound:") and not NOTICE.search(line)
    ]
    if code == 2 and len(errors) != 1:
        yield f"it left with 2 and {len(errors)} lines of error"
