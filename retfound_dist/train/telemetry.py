"""What a run says of itself: one row a logged step, one line or bar for the person watching."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@dataclass
class Clock:
    """Time spent since the last logged step, in seconds."""

    steps: int = 0
    data_wait: float = 0.0
    begun: float = field(default_factory=time.perf_counter)

    def rates(self, global_batch: int) -> dict[str, float]:
        """Means over the steps since the last call."""
        now = time.perf_counter()
        step_s = (now - self.begun) / max(1, self.steps)
        wait = self.data_wait / max(1, self.steps)
        self.steps, self.data_wait, self.begun = 0, 0.0, now
        return {"images_per_s": global_batch / step_s, "data_wait_s": wait, "step_s": step_s}


class Display:
    """A progress bar on a terminal, plain lines elsewhere, nothing when `shown` is false."""

    def __init__(self, total: int, start: int, shown: bool) -> None:
        self._console = Console(stderr=True)
        self._shown, self._total, self._last = shown, total, 0.0
        self._bar: Progress | None = None
        if shown and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("pretrain"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[news]}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._task = self._bar.add_task("pretrain", total=total, completed=start, news="starting")

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._shown:
            (self._bar.console if self._bar else self._console).print(text, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that every rank may say, and `--quiet` does not silence."""
        (self._bar.console if self._bar else self._console).print(text, highlight=False, soft_wrap=True)

    def show(self, row: dict[str, Any]) -> None:
        """A logged step; plain lines come at most every ten seconds."""
        news = f"loss {row['loss']:.4f}  {row['images_per_s']:.0f} images/s"
        if self._bar:
            self._bar.update(self._task, completed=row["step"], news=news)
        elif self._shown and (time.monotonic() - self._last > 10 or row["step"] == self._total):
            self._last = time.monotonic()
            left = (self._total - row["step"]) * row["step_s"]
            self.say(f"step {row['step']}/{self._total}  {news}  lr {row['lr']:.2e}  {duration(left)} left")


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
