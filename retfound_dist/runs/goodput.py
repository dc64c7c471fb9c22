"""Splits a run's wall time into steps that count and the cost of interruptions. Pure.

It uses the rows of `events.jsonl`, one for each start and end of the training process, and those of
`metrics.jsonl`, one for each logged step.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retfound_dist.errors import TrainingError

START, END = "start", "end"


@dataclass(frozen=True, kw_only=True)
class Goodput:
    """Seconds of a run, from its first start to its last row or event."""

    wall_s: float
    useful_s: float
    """Steps that count, each counted once."""
    redo_s: float
    """Steps whose result was lost, so that they were repeated."""
    load_s: float
    """Reading checkpoints back."""
    restart_s: float
    """From the start of each process to its first step, without `load_s`. The first start counts too."""
    down_s: float
    """From the end of each process to the start of the next. A process that was killed logs no end: its last
    logged step counts as its end."""

    @property
    def goodput(self) -> float:
        """Share of the wall time in steps that count."""
        return self.useful_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def rest_s(self) -> float:
        """The remaining time: saving checkpoints, interrupted steps."""
        return self.wall_s - self.useful_s - self.redo_s - self.load_s - self.restart_s - self.down_s


def goodput(events: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Goodput:
    """Split a run's time; `rows`: all rows, also of steps that were repeated.

    For a step that was logged twice, the later row counts. TrainingError where no start was logged.
    """
    starts, ends = _starts_and_ends(events, rows)
    useful_s, redo_s = _step_seconds(rows)
    load_s = sum(float(start["load_s"]) for start in starts)
    ready_s = sum(start["ready"] - start["began"] for start in starts)
    # Clocks of two hosts differ, so a start may seem to come before the last end: that is no negative pause.
    down_s = sum(max(0.0, after["began"] - end) for end, after in zip(ends, starts[1:], strict=False))
    return Goodput(
        wall_s=ends[-1] - starts[0]["began"],
        useful_s=useful_s,
        redo_s=redo_s,
        load_s=load_s,
        restart_s=ready_s - load_s,
        down_s=down_s,
    )


def _starts_and_ends(
    events: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[float]]:
    """Starts in order, and the time of each end: as logged, else its last step, else when it was ready."""
    events = list(events)
    starts = sorted((e for e in events if e["event"] == START), key=lambda e: float(e["began"]))
    if not starts:
        raise TrainingError(
            f"none of the run's {len(events)} events is a start, so its time cannot be split: "
            "an early version that logged no starts made it"
        )
    ends = []
    for start, next_start in zip(starts, [*(e["began"] for e in starts[1:]), float("inf")], strict=True):
        logged = [
            e["time"] for e in events if e["event"] == END and start["began"] <= e["time"] <= next_start
        ]
        steps = [r["time"] for r in rows if "time" in r and start["ready"] <= r["time"] <= next_start]
        ends.append(float(max(logged or steps or [start["ready"]])))
    return starts, ends


def _step_seconds(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds of the steps that count, and of those that were repeated later.

    A row covers the steps since the row before it. Each process logs its first step, so a row with a lower
    step than the row before it covers one step. Ranges of steps are counted instead of single steps, because
    a damaged row may have any step.
    """
    total_s, previous = 0.0, 0
    ranges: list[tuple[int, int, float]] = []
    for row in rows:
        step, step_s = int(row["step"]), float(row["step_s"])
        first = previous + 1 if step > previous else step
        ranges.append((first, step, step_s))
        total_s += (step - first + 1) * step_s
        previous = step
    useful_s, covered = 0.0, _StepRanges()
    for first, last, step_s in reversed(ranges):  # the later row of a repeated step counts
        useful_s += covered.add(first, last) * step_s
    return useful_s, total_s - useful_s


class _StepRanges:
    """A set of steps, kept as rising ranges with gaps between them."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> int:
        """Add the steps from `first` to `last`; returns how many of them are new."""
        # first - 1 and last + 1: ranges that touch are merged, so that the lists stay short.
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        overlapping = zip(self._firsts[low:high], self._lasts[low:high], strict=True)
        new = last - first + 1 - sum(max(0, min(last, b) - max(first, a) + 1) for a, b in overlapping)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]
        return new
