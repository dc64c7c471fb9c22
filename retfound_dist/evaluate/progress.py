"""What a person sees while it runs: a live line in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_PLAIN_EVERY = 20.0
"""Seconds between plain lines on the same thing."""
_TELLING = 0.02
"""Share that must be done before the time left can be told: the start is slower than the rest."""


class Display:
    """One thing is under way at a time: `begin`, `advance`; `say` prints a line that stays."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self._task: TaskID | None = None
        self._what, self._started, self._said = "", 0.0, 0.0

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line that stays on screen."""
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A line that stays, in red where there are colours."""
        self.console.print(text, markup=False, style="bold red")

    def begin(self, what: str) -> None:
        """Something new is under way."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=None)
        self._what, self._started = what, time.monotonic()
        self._said = self._started

    def advance(self, done: int, total: int, note: str = "") -> None:
        """How far it is; with the time left on the live line, and now and then on a plain one."""
        if self._task is not None:
            self._progress.update(
                self._task, completed=done, total=total, description=f"{self._what} {note}".strip()
            )
        now = time.monotonic()
        if not self.live and now - self._said > _PLAIN_EVERY and done < total:
            self._said = now
            left = (now - self._started) / max(done, 1) * (total - done)
            guess = f", {clock(left)} left" if done >= _TELLING * total else ""
            self.say(f"{self._what} {note}".strip() + f": {done} of {total}{guess}")


def clock(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch of fine-tuning in words."""
    text = f"seed {row['seed']} epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.3f}"
    if row["val_loss"] is not None:
        text += f", val loss {row['val_loss']:.3f}"
    if row["val_auroc"] is not None:
        text += f", val AUROC {row['val_auroc']:.3f}"
    return f"{text}  ({row['seconds']:.1f} s)"
