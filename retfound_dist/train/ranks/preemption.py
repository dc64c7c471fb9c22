"""Requests to stop, by a signal to any rank or by a time limit: all ranks leave at the same step.

SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) are blocked in all threads of the process. A separate thread reads them.
So they arrive whatever the other threads do. Child processes do not die of a signal that Slurm or torchrun
sends to every process. `listen` is called before anything slow is imported. This module does not need torch.

After the first signal the step is finished and saved. A second signal, a little later, ends the process at
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
# Schedulers often send both signals, or one of them twice, within a moment. A person presses Ctrl-C more
# slowly, so half the time is enough there.
REPEAT_WINDOW_S = 2.0
"""Seconds within which a second signal is taken as a repetition of the first."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it: 128 + SIGINT."""
STOP_FILE_VARIABLE = "RETFOUND_ASKED_TO_STOP"
"""Environment variable of launch/slurm/node.sh: a file that exists once it has asked its ranks to stop."""


class Stage(Enum):
    """How far this start of the run is. The reaction to a request to stop depends on it."""

    STARTING = "the ranks have not joined"
    """Leaves at once: there is nothing to save, and no other rank waits."""
    SETUP = "the run is set up"
    """All ranks leave together at the next call of `stop_if_requested`. Ctrl-C leaves at once."""
    TRAINING = "steps are trained"
    """All ranks save and leave together after the step (`Trainer.run`)."""
    LEAVING = "everything is saved"
    """Ignored."""


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self, max_minutes: float = 0) -> None:
        """`max_minutes`: the time limit from now on; 0: none."""
        self.requested_at = 0.0
        self.interrupted = False
        """Whether it was Ctrl-C."""
        self.silent = False
        """Whether another rank prints the message."""
        self.stage = Stage.STARTING
        self.report: Callable[[str], None] | None = None
        """Shows a message to the user."""
        self._by_slurm = STOP_FILE_VARIABLE in os.environ
        # Slurm sends a second signal at the time limit, so it does not mean that the user wants to leave at
        # once. Slurm itself kills a process that takes too long.
        self._deadline: float | None = None
        self.set_time_limit(max_minutes)

    def set_time_limit(self, max_minutes: float) -> None:
        """Stop by itself after this time; 0: never."""
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else None

    def listen(self) -> None:
        """Handle the signals from now on; called by the main thread, before it starts others."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # They are blocked already. If a library unblocks one, this handler still notes it.
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._handle_signal(number))
        threading.Thread(target=self._read_signals, name="signals", daemon=True).start()
        if os.path.exists(os.environ.get(STOP_FILE_VARIABLE, "")):
            self._handle_signal(signal.SIGUSR1)

    def enter_setup(self, report: Callable[[str], None] | None) -> None:
        """The ranks have joined: from now on they leave together. `report` shows messages, on rank 0."""
        self.stage, self.report = Stage.SETUP, report

    def ignore_signals(self) -> None:
        """Ignore all further signals: the process is leaving."""
        self.stage = Stage.LEAVING

    @property
    def requested(self) -> bool:
        """Whether it is time to leave."""
        return self.requested_at > 0 or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _read_signals(self) -> None:
        while True:
            self._handle_signal(signal.sigwait(SIGNALS))

    def _handle_signal(self, number: int) -> None:
        """Note the first request to stop; exit at once on a repeated one, or if nothing is to be saved."""
        interrupt, now = number == signal.SIGINT, time.monotonic()
        if self.stage is Stage.LEAVING:
            return
        window_s = REPEAT_WINDOW_S / 2 if interrupt else REPEAT_WINDOW_S
        again = self.requested_at and now - self.requested_at > window_s
        # `_exit`, here and below: no `finally` and no other thread can delay the exit.
        if again and (interrupt or not self._by_slurm):
            os._exit(INTERRUPTED if interrupt else 128 + number)
        if self.stage is Stage.STARTING or (interrupt and self.stage is Stage.SETUP):
            self._exit_unsaved(number)
        if self.requested_at:
            return
        self.interrupted, self.requested_at = interrupt, now
        if self.report:
            reaction = (
                "saving after this step" if self.stage is Stage.TRAINING else "leaving when all ranks can"
            )
            name = "Ctrl-C" if interrupt else signal.Signals(number).name
            self.report(f"asked to stop ({name}): {reaction}; ask again to leave at once")

    def _exit_unsaved(self, number: int) -> None:
        """Exit before the first step, when there is nothing to save."""
        if not self.silent:
            reason = f"stopped by {signal.Signals(number).name} before the first step: nothing to save"
            print(f"retfound: {reason}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED if number == signal.SIGINT else 0)
