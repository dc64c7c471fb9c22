"""One process of `benchmarks.chaos`: started, watched to its end, and judged by how it left."""

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
from tests import ROOT

LIMIT_S = 420.0
"""A process that takes longer hangs: ten times what the slowest takes, and a store's patience."""
GONE_S = 20.0
"""Seconds that the processes of a job may outlive it."""
NOISE = (
    "Traceback (most recent call last)", "Exception ignored in", "exception was never retrieved",
    "Exception in thread", "Fatal Python error", "terminate called", "Unclosed ",
)  # fmt: skip
"""Words of a program that has lost control of what it says."""
NOTICE = re.compile(r"does not answer|asking for up to|was held by|will be tried again|warning:|note:")
"""Lines of `retfound:` that tell of a trouble that may pass."""
_TRACKER = re.compile(
    r"(^.*resource_tracker\.py:\d+: UserWarning: .*\n(\s+warnings\.warn\(.*\n)?)"
    r"|(^Traceback \(most recent call last\):\n  File \".*multiprocessing/resource_tracker\.py\".*\n"
    r"(    .*\n)*KeyError: .*\n?)",
    re.MULTILINE,
)
"""What Python says when its resource tracker was killed: it starts another, which knows no semaphore."""


class Watched:
    """A command that runs in a session of its own, what it says on stderr in a file."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.killed = False
        """Whether the main process was killed by who watches."""
        self.struck = False
        """Whether any of its processes was."""
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                words, env=env, cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            )  # fmt: skip
        self.pid, self._began = self._process.pid, time.monotonic()

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return time.monotonic() - self._began

    @property
    def said(self) -> str:
        """All of stderr so far."""
        return self._log.read_text(errors="replace")

    def tree(self) -> list[int]:
        """It and all that it has started, rising."""
        return sorted(of_sessions({self.pid}))

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so long."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))
            return True
        return False

    def end(self) -> Iterator[str]:
        """Wait for it and all that it has started; gives a line for what did not end by itself."""
        if not self.wait(LIMIT_S - self.seconds):
            yield f"it hangs: after {LIMIT_S:.0f} s it has not ended"
            self._kill_all()
            return
        if left := self._left():
            yield f"{len(left)} processes outlive it: {'; '.join(sorted(left.values()))[:300]}"
            self._kill_all()

    def _kill_all(self) -> None:
        for pid in of_sessions({self.pid}):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._left()

    def _left(self) -> dict[int, str]:
        """What of it still runs after a while."""
        end = time.monotonic() + GONE_S
        while (left := of_sessions({self.pid})) and time.monotonic() < end:
            time.sleep(0.1)
        return left


def untold(code: int, said: str, killed: bool, struck: bool = False) -> Iterator[str]:
    """What a person is not told, or told too much of, by a process that has ended."""
    if struck:
        said = _TRACKER.sub("", said)
    for words in NOISE if killed else (*NOISE, "resource_tracker:"):  # Python's tidies up after a kill, aloud
        if words in said:
            yield f"it says {words!r}"
    if killed and code == -signal.SIGKILL:
        return
    if code not in (0, 2, 130):
        yield f"it left with {code}"
    errors = [line for line in said.splitlines() if line.startswith("retfound:") and not NOTICE.search(line)]
    if code == 2 and len(errors) != 1:
        yield f"it left with 2 and {len(errors)} lines of error"
