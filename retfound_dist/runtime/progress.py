"""Displays progress: a live line in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from retfound_dist.runtime.humanize import duration

_PLAIN_EVERY = 20.0
"""Seconds between plain lines about the same task."""
_PLAIN_FIRST = 5.0
"""Seconds until the first plain line."""
_COLUMNS_BESIDE_TITLE = 40
"""Columns that bar, count and time left take in a live line."""
_LEAST_DONE = 0.02
"""Share that must be done before the time left is shown: the start is slower than the rest."""


class _Left(ProgressColumn):
    """How much is done and how long the rest takes; nothing where neither is known."""

    def render(self, task: Task) -> Text:
        """For rich."""
        if task.total is None:
            return Text("")
        left = "" if task.time_remaining is None else f"  {duration(task.time_remaining, whole=True)} left"
        return Text(f"{task.completed:.0f}/{task.total:.0f}{left}")


class ProgressDisplay:
    """Shows one task at a time: `begin`, then `advance`. `say` prints a line that stays."""

    def __init__(self, quiet: bool = False, stream: IO[str] | None = None) -> None:
        self.quiet = quiet
        self.console = Console(quiet=quiet, highlight=False, file=stream)
        self.live = self.console.is_terminal and not quiet
        self.console.soft_wrap = not self.live  # a terminal's lines break between words
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            _Left(table_column=Column(no_wrap=True)),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self._task: TaskID | None = None
        self._what, self._started, self._said, self._pause = "", 0.0, 0.0, 0.0

    def __enter__(self) -> ProgressDisplay:
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

    def begin(self, title: str, since: float | None = None) -> None:
        """Start a new task. `since`: when it began (time.monotonic()), where that is not now."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(self._fit_title(title), total=None)
        self._what, self._started = title, time.monotonic() if since is None else since
        self._said, self._pause = self._started, _PLAIN_FIRST

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show how much is done, with the time left: on the live line, or now and then on a plain one."""
        title = f"{self._what} {note}".strip()
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total, description=self._fit_title(title))
        now = time.monotonic()
        if not self.live and now - self._said > min(self._pause, _PLAIN_EVERY) and done < total:
            self._said, self._pause = now, _PLAIN_EVERY
            left = (now - self._started) / max(done, 1) * (total - done)
            guess = f", {duration(left, whole=True)} left" if done >= _LEAST_DONE * total else ""
            self.say(f"{title}: {done} of {total}{guess}")

    def _fit_title(self, title: str) -> str:
        return shorten(title, max(20, self.console.width - _COLUMNS_BESIDE_TITLE))


def shorten(text: str, most: int) -> str:
    """At most `most` characters: the first word and the end, which tells paths apart."""
    if len(text) <= most:
        return text
    head = text.split(" ", 1)[0] + " " if " " in text[: most // 2] else ""
    return f"{head}…{text[len(head) - most + 1 :]}"


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch of fine-tuning in words."""
    text = f"seed {row['seed']} epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.3f}"
    if row["val_loss"] is not None:
        text += f", val loss {row['val_loss']:.3f}"
    if row["val_auroc"] is not None:
        text += f", val AUROC {row['val_auroc']:.3f}"
    return f"{text}  ({row['seconds']:.1f} s)"
