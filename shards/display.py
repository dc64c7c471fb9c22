"""Progress of packing and verifying on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

LINE_EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""
Report = Callable[[int, int], None]


@contextmanager
def progress_display(task_name: str, unit: str, *, quiet: bool = False) -> Iterator[Report]:
    """Yields a function of (done, total) that shows progress on stderr until the block ends."""
    console = Console(stderr=True)
    if quiet:
        yield lambda done, total: None
    elif console.is_terminal:
        with _bar(console, unit) as bar:
            task = bar.add_task(task_name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _lines(task_name, unit)


# rich has a column for bytes a second, and none for other units.
class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "")


def _bar(console: Console, unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeLeft(),
        console=console,
        transient=True,
    )


def _lines(task_name: str, unit: str) -> Report:
    """Prints a line every few seconds. The rate counts only what this process has done."""
    begin = last = time.monotonic()
    first: int | None = None

    def report(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        # A pack that goes on begins with thousands done.
        # Counting them would promise an end that is far too early.
        first = done if first is None else first
        if now - last < LINE_EVERY_S:
            return
        last = now
        rate = (done - first) / (now - begin)
        left = f", {(total - done) / rate:,.0f} s left" if rate else ""
        print(f"{task_name} {done:,} of {total:,} ({rate:,.1f} {unit}/s{left})", file=sys.stderr, flush=True)

    return report
