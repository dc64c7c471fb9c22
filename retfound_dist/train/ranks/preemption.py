"""Requests to stop, by a signal at any one rank or by the clock: all ranks leave at the same step.

SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) are blocked in all threads of the process, and a thread of their own
reads them. So they arrive whatever the other threads do, and no process started from here dies of a signal
that Slurm or torchrun sends to every process. `listen` is called before anything slow is imported; this
module needs no torch.

The first signal is noted; the step is finished and saved. A second one, a little later, ends the process at
once. While there is nothing to save, the first one ends it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Schedulers often send both signals, or one of them twice, within a moment. Ctrl-C comes from a person, who
# is slower: half of it.
GRACE = 2.0
"""Seconds in which a second signal counts as the first."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell gives it."""
ASKED_BEFORE = "RETFOUND_ASKED_TO_STOP"
"""Environment variable of launch/slurm/node.sh: a file that is there once this host's ranks were asked."""


class Stage(Enum):
    """How far this start of the run is. What a request to stop means depends on it."""

    ALONE = "the ranks have not met"
    """Leaves at once: nothing is to be saved, and nobody waits."""
    TOGETHER = "the ranks set up"
    """Noted; all ranks leave together, at the next of a few points (`pretrain.py`). Ctrl-C leaves at once."""
    TRAINING = "steps are done"
    """Noted; the vote after each step finds it."""
    LEAVING = "all is saved"
    """Ignored."""


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self, max_minutes: float = 0) -> None:
        """`max_minutes`: ask by itself that long after now; 0: never."""
        self.asked_at = 0.0
        self.interrupted = False
        """Whether it was Ctrl-C."""
        self.silent = False
        """Whether another rank tells the person."""
        self.stage = Stage.ALONE
        self.say: Callable[[str], None] | None = None
        """Tells the person that the request has arrived."""
        self._by_slurm = ASKED_BEFORE in os.environ
        # Slurm signals once more at the time limit, so a second signal is no wish to leave at once. It kills
        # by itself what takes too long.
        self._until: float | None = None
        self.limit(max_minutes)

    def limit(self, max_minutes: float) -> None:
        """Ask by itself that long after now; 0: never."""
        self._until = time.monotonic() + 60 * max_minutes if max_minutes else None

    def listen(self) -> None:
        """Take the signals from now on; to be called by the main thread, before others are started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # Blocked already; should a library unblock one, it is noted all the same and ends nothing.
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._note(number))
        threading.Thread(target=self._read_signals, name="signals", daemon=True).start()
        if os.path.exists(os.environ.get(ASKED_BEFORE, "")):
            self._note(signal.SIGUSR1)

    def together(self, say: Callable[[str], None] | None) -> None:
        """The ranks have met: from now on they leave together; `say` tells the person, on rank 0."""
        self.stage, self.say = Stage.TOGETHER, say

    def ignore(self) -> None:
        """Let no signal break into the leaving."""
        self.stage = Stage.LEAVING

    @property
    def asked(self) -> bool:
        """Whether it is time to leave."""
        return self.asked_at > 0 or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        """Whether the clock says so."""
        return self._until is not None and time.monotonic() >= self._until

    def _read_signals(self) -> None:
        while True:
            self._note(signal.sigwait(SIGNALS))

    def _note(self, number: int) -> None:
        interrupt, now = number == signal.SIGINT, time.monotonic()
        if self.stage is Stage.LEAVING:
            return
        again = self.asked_at and now - self.asked_at > (GRACE / 2 if interrupt else GRACE)
        # `_exit`, here and below: no `finally` and no other thread may hold up a process that is to leave at
        # once.
        if again and (interrupt or not self._by_slurm):
            os._exit(INTERRUPTED if interrupt else 128 + number)
        if self.stage is Stage.ALONE or (interrupt and self.stage is Stage.TOGETHER):
            self._leave(number)
        if self.asked_at:
            return
        self.interrupted, self.asked_at = interrupt, now
        if self.say:
            reaction = (
                "saving after this step" if self.stage is Stage.TRAINING else "leaving when all ranks can"
            )
            name = "Ctrl-C" if interrupt else signal.Signals(number).name
            self.say(f"asked to stop ({name}): {reaction}; asked again, leaving at once")

    def _leave(self, number: int) -> None:
        if not self.silent:
            reason = f"stopped by {signal.Signals(number).name} before the first step: nothing to save"
            print(f"retfound: {reason}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED if number == signal.SIGINT else 0)
