"""Asked to stop: SIGTERM or SIGUSR1 at any one rank, and all ranks leave at the same step.

The first signal is noted and the step is finished; a second one, more than `GRACE` seconds later,
ends the process at once. (Schedulers often send both signals, or one of them twice, in one breath.)
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

import torch

from retfound_dist.train.engine import Group

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
GRACE = 2.0


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked_at = 0.0

    def listen(self) -> None:
        """Take the signals from now on."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def ignore(self) -> None:
        """Let no signal break into the leaving: Python would restore the deadly defaults."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def agreed(self, group: Group) -> bool:
        """Whether any rank was asked; every rank calls it at the end of a step."""
        flag = torch.tensor(float(self.asked_at > 0), device=group.device)
        return bool(group.sum(flag).item() > 0)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked_at and time.monotonic() - self.asked_at > GRACE:
            os._exit(128 + number)
        self.asked_at = self.asked_at or time.monotonic()
