"""Times the steps of a run and shows them: a panel on a terminal, else plain lines."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from retfound_dist.runtime.humanize import duration


@dataclass
class Clock:
    """Time spent since the last logged step, in seconds."""

    steps: int = 0
    data_wait: float = 0.0
    begun: float = field(default_factory=time.perf_counter)
    _forward: float = 0.0
    _marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a micro-batch."""
        begun = time.perf_counter()
        yield
        self.data_wait += time.perf_counter() - begun

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around a forward pass: the rank's own time."""
        # Not around the backward pass: there ranks wait for each other, so all show the time of the slowest.
        if torch.cuda.is_available():
            # Events are put into the device's queue; a host clock would measure only how fast work is queued.
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            yield
            end.record()
            self._marks.append((begin, end))
        else:
            begun = time.perf_counter()
            yield
            self._forward += time.perf_counter() - begun

    def rank_s(self) -> float:
        """Seconds a step of this rank's own work: data wait and forward passes. Waits for the device."""
        if self._marks:
            torch.cuda.synchronize()
        forward = self._forward + sum(a.elapsed_time(b) for a, b in self._marks) / 1000
        return float(self.data_wait + forward) / max(1, self.steps)

    def rates(self, global_batch: int) -> dict[str, float]:
        """Means over the steps since the last call; the sums begin anew."""
        now = time.perf_counter()
        step_s = (now - self.begun) / max(1, self.steps)
        wait = self.data_wait / max(1, self.steps)
        self.steps, self.data_wait, self.begun = 0, 0.0, now
        self._forward, self._marks = 0.0, []
        return {"images_per_s": global_batch / step_s, "data_wait_s": wait, "step_s": step_s}


def memory_gb() -> float:
    """The most memory this process has held: of the GPU where there is one, else of the machine."""
    # Reserved, not allocated: what the caching allocator holds is what ends a device's memory.
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def process_began() -> float:
    """When this process was started, in unix seconds."""
    # Not the time of the import: goodput counts what Python and torch take to start. Field 22 of `stat` is
    # the start in ticks since boot; the name before it may hold blanks and brackets, hence the split at the
    # last bracket.
    with suppress(OSError, ValueError, IndexError), open("/proc/self/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    return time.time()


class TrainingDisplay:
    """A panel on a terminal, plain lines elsewhere; only warnings when `shown` is false."""

    def __init__(self, total: int, shown: bool) -> None:
        """`total`: the last step."""
        self._console = Console(stderr=True)
        self._shown, self._total, self._last = shown, total, 0.0
        self._bar: Progress | None = None
        self._live: Live | None = None
        if shown and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("pretrain"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                expand=True,
            )
            self._task = self._bar.add_task("pretrain", total=total, left="starting")
            self._live = Live(self._bar, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Take the panel away."""
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._shown:
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that every rank may say, and `--quiet` does not silence."""
        self._print(text)

    def _print(self, text: str) -> None:
        """On a terminal lines break between words; elsewhere they stay whole."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)

    def show(self, row: dict[str, Any], checkpoint: int) -> None:
        """A logged step and the last committed checkpoint's; plain lines come at most every ten seconds."""
        left = f"{duration((self._total - row['step']) * row['step_s'], whole=True)} left"
        if self._live and self._bar:
            self._bar.update(self._task, completed=row["step"], left=left)
            self._live.update(Group(self._bar, *(Text(line, no_wrap=True) for line in news(row, checkpoint))))
        elif self._shown and (time.monotonic() - self._last > 10 or row["step"] == self._total):
            self._last = time.monotonic()
            speed = f"{row['images_per_s']:.0f} images/s"
            loss = f"loss {_number(row['loss'])}"
            self.say(f"step {row['step']}/{self._total}  {loss}  {speed}  lr {row['lr']:.2e}  {left}")


def news(row: dict[str, Any], checkpoint: int) -> tuple[str, str]:
    """Two lines of at most 80 characters on a logged step."""
    saved = f"checkpoint {checkpoint}" if checkpoint else "no checkpoint yet"
    wait = row["data_wait_s"] / row["step_s"]
    ranks = "1 rank" if row["world_size"] == 1 else f"{row['world_size']} ranks"
    return (
        f"epoch {row['epoch']:.2f}   loss {_number(row['loss'])}   grad {_number(row['grad_norm'])}   "
        f"lr {row['lr']:.2e}   {saved}",
        f"{row['images_per_s']:.0f} images/s   MFU {row['mfu']:.0%}   data wait {wait:.1%}   "
        f"memory {row['memory_gb']:.1f} GB   {ranks}",
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
