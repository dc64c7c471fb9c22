"""Asked to stop, by a signal at any one rank or by the clock: all ranks leave at the same step.

The first SIGTERM or SIGUSR1 is noted and the step is finished; a second one, more than `GRACE` seconds
later, ends the process at once. (Schedulers often send both signals, or one of them twice, in one breath.)
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
GRACE = 2.0


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self, max_minutes: float = 0) -> None:
        """`max_minutes`: ask by itself that long after now; 0: never."""
        self.asked_at = 0.0
        self._until = time.monotonic() + 60 * max_minutes if max_minutes else None

    def listen(self) -> None:
        """Take the signals from now on."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def ignore(self) -> None:
        """Let no signal break into the leaving: Python would restore the deadly defaults."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @property
    def asked(self) -> bool:
        """Whether it is time to leave."""
        return self.asked_at > 0 or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        """Whether the clock says so."""
        return self._until is not None and time.monotonic() >= self._until

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked_at and time.monotonic() - self.asked_at > GRACE:
            os._exit(128 + number)
        self.asked_at = self.asked_at or time.monotonic()
