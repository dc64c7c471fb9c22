"""Displays the progress of a command: a live line in a terminal, plain lines elsewhere, nothing when quiet.

live     packing ━━━━━━╺━━━━━━━━━ 1,234/5,678 images  57 images/s  78 s left
plain    packing: 1,234 of 5,678 images, 57 images/s, 78 s left
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from retfound_dist.runtime.humanize import duration

PLAIN_FIRST_S, PLAIN_EVERY_S = 5.0, 10.0
"""Seconds until the first plain line about a task, and from one to the next."""
_BAR_WIDTH = 16
_LEAST_TITLE = 20
"""Letters of the title that a live line keeps, however long its numbers are."""
_LEAST_ELAPSED_S = 1.0
"""Seconds before a rate is shown, except the rate of the whole task: the first results of parallel workers
come all at once."""
_LEAST_DONE = 0.02
"""Share that must be done before the time left is shown: the start is slower than the rest."""
Report = Callable[[int, int], None]
"""A function of (done, total)."""


class ProgressDisplay:
    """Shows one task at a time: `begin`, then `advance`. `say` and `warn` print lines that stay."""

    def __init__(
        self,
        quiet: bool = False,
        *,
        stderr: bool = False,
        warn_when_quiet: bool = False,
        first_line_s: float | None = None,
    ) -> None:
        """`first_line_s`: seconds until the first plain line about a task (None: PLAIN_FIRST_S)."""
        self.quiet, self._warn_when_quiet = quiet, warn_when_quiet
        self._first_line_s = PLAIN_FIRST_S if first_line_s is None else first_line_s
        # The stream itself, not `stderr=True`. While rich 15 shows a live line, sys.stderr is a proxy. Rich
        # would ask the proxy for `rich_proxied_file`, and not the stream of runtime/terminal.py behind it.
        self._console = Console(file=sys.stderr if stderr else sys.stdout, highlight=False)
        self.live = self._console.is_terminal and not quiet
        # On a terminal lines break between words. Elsewhere they stay whole, for programs that read them.
        self._console.soft_wrap = not self._console.is_terminal
        self._bar = _BarWithDetails(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            disable=not self.live,
        )
        self._bar_task: TaskID | None = None
        self._title, self._unit, self._started = "", "", 0.0
        self._done_before: int | None = 0
        self._next_line, self._has_lines = 0.0, False

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Take the live line away."""
        if self.live:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a line that stays, in red where there are colours."""
        if not self.quiet or self._warn_when_quiet:
            self._console.print(text, markup=False, style="bold red")

    def begin(
        self, title: str, unit: str = "", *, done_before: int | None = 0, since: float | None = None
    ) -> None:
        """Start a new task.

        `unit`: what is counted; the rate is shown where it is given. `done_before`: how much an earlier
        process has done, which counts neither for the rate nor for the time left; None: as much as the first
        report says. `since`: when the task began (time.monotonic()), where that is not now.
        """
        self._title, self._unit, self._done_before = title, unit, done_before
        self._started = time.monotonic() if since is None else since
        self._next_line, self._has_lines = self._started + self._first_line_s, False
        if self._bar_task is not None:
            self._bar.remove_task(self._bar_task)
        self._bar.details = ()
        self._bar_task = self._bar.add_task(self._fit(title, ""), total=None, numbers="")

    def advance(
        self,
        done: int,
        total: int,
        note: str = "",
        *,
        rate: str = "",
        left_s: float | None = None,
        details: Sequence[str] = (),
    ) -> None:
        """Show how much is done: on the live line, or now and then on a plain one.

        `rate` and `left_s` (seconds) replace what follows from the time since `begin`. `details`: lines below
        the live one, which stand there instead of `note`.
        """
        now = time.monotonic()
        if self._done_before is None:
            self._done_before, self._started = done, now
        elapsed = now - self._started
        enough_time = elapsed >= _LEAST_ELAPSED_S or (done >= total and elapsed > 0)
        own_rate = (done - self._done_before) / elapsed if enough_time else 0.0
        if not rate and self._unit and own_rate > 0:
            rate = rate_text(own_rate, self._unit)
        if left_s is None and own_rate > 0 and done - self._done_before >= _LEAST_DONE * total:
            left_s = (total - done) / own_rate
        left = "" if left_s is None else f"{duration(left_s, whole=True)} left"
        if self.live and self._bar_task is not None:
            numbers = "  ".join(filter(None, (f"{done:,}/{total:,} {self._unit}".strip(), rate, left)))
            title = self._title if details else f"{self._title} {note}".strip()
            self._bar.details = tuple(details)
            self._bar.update(
                self._bar_task,
                completed=done,
                total=total,
                description=self._fit(title, numbers),
                numbers=numbers,
            )
        elif now > self._next_line if done < total else self._has_lines or now > self._next_line:
            self._next_line, self._has_lines = now + PLAIN_EVERY_S, done < total
            count = f"{done:,} of {total:,} {self._unit}".strip()
            self.say(f"{self._title}: {', '.join(filter(None, (count, note, rate, left)))}")

    def _fit(self, title: str, numbers: str) -> str:
        return shorten(title, max(_LEAST_TITLE, self._console.width - _BAR_WIDTH - len(numbers) - 2))


class _BarWithDetails(Progress):
    """A bar with lines of text below it."""

    details: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """For rich."""
        yield from super().get_renderables()
        yield from (Text(line, no_wrap=True) for line in self.details)


@contextmanager
def show_progress(title: str, unit: str, *, quiet: bool = False) -> Iterator[Report]:
    """Yields a function of (done, total) that shows one task on the error stream until the block ends."""
    with ProgressDisplay(quiet, stderr=True) as display:
        display.begin(title, unit, done_before=None)
        yield display.advance


def rate_text(rate: float, unit: str) -> str:
    """A rate in words: `9.1 images/s`, `1,234 images/s`."""
    return f"{rate:,.1f} {unit}/s" if rate < 10 else f"{rate:,.0f} {unit}/s"


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
    if row.get("val_score") is not None:
        # `val_score` is negated where lower is better. `val` may be undefined for some of several labels.
        value = row["val"][row["val_metric"]]
        text += (
            f", val {row['val_metric'].replace('_', ' ')} {row['val_score'] if value is None else value:.3f}"
        )
    return f"{text}  ({row['seconds']:.1f} s)"
