"""Times the steps of a run and shows them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from retfound_dist.runtime.progress import ProgressDisplay, rate_text


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
        """Measure the wait for a micro-batch."""
        begun = time.perf_counter()
        yield
        self.data_wait += time.perf_counter() - begun

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Measure a forward pass, which is the rank's own time."""
        # Not the backward pass: in it ranks wait for each other, so all would have the time of the slowest.
        if torch.cuda.is_available():
            # Events are in the device's queue. A host clock would only measure how fast work is queued.
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
        """Seconds of this rank's own work in a step: data wait and forward passes. Waits for the device."""
        if self._marks:
            torch.cuda.synchronize()
        forward = self._forward + sum(a.elapsed_time(b) for a, b in self._marks) / 1000
        return float(self.data_wait + forward) / max(1, self.steps)

    def rates(self, global_batch: int) -> dict[str, float]:
        """Means over the steps since the last call; resets the clock."""
        now = time.perf_counter()
        step_s = (now - self.begun) / max(1, self.steps)
        wait = self.data_wait / max(1, self.steps)
        self.steps, self.data_wait, self.begun = 0, 0.0, now
        self._forward, self._marks = 0.0, []
        return {"images_per_s": global_batch / step_s, "data_wait_s": wait, "step_s": step_s}


def memory_gb() -> float:
    """The peak memory of this process: of the GPU if there is one, else of the machine."""
    # Reserved, not allocated: the memory of the caching allocator counts towards the device's limit.
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def process_began() -> float:
    """Unix time of the start of this process."""
    # Not the time of the import: goodput includes the time that Python and torch need to start. Field 22 of
    # `stat` is the start in ticks since boot. The name before it may contain blanks and brackets, hence the
    # split at the last bracket.
    with suppress(OSError, ValueError, IndexError), open("/proc/self/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    return time.time()


def training_display(shown: bool) -> ProgressDisplay:
    """The display of a rank. Only its warnings are printed where it is not shown, also with `--quiet`."""
    # The first logged step is shown at once: it says that training works.
    return ProgressDisplay(quiet=not shown, stderr=True, warn_when_quiet=True, first_line_s=0.0)


def show_step(display: ProgressDisplay, row: dict[str, Any], steps: int, checkpoint: int) -> None:
    """Show a logged step of `steps`. `checkpoint`: the step of the last committed one, or 0."""
    display.advance(
        row["step"],
        steps,
        f"loss {_number(row['loss'])}, lr {row['lr']:.2e}",
        rate=rate_text(row["images_per_s"], "images"),
        left_s=(steps - row["step"]) * row["step_s"],
        details=step_details(row, checkpoint) if display.live else (),
    )


def step_details(row: dict[str, Any], checkpoint: int) -> tuple[str, str]:
    """Two lines of at most 80 characters on a logged step: what the bar above them does not show."""
    saved = f"checkpoint {checkpoint}" if checkpoint else "no checkpoint yet"
    wait = row["data_wait_s"] / row["step_s"]
    ranks = "1 rank" if row["world_size"] == 1 else f"{row['world_size']} ranks"
    return (
        f"epoch {row['epoch']:.2f}   loss {_number(row['loss'])}   grad {_number(row['grad_norm'])}   "
        f"lr {row['lr']:.2e}   {saved}",
        f"MFU {row['mfu']:.0%}   data wait {wait:.1%}   memory {row['memory_gb']:.1f} GB   {ranks}",
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
