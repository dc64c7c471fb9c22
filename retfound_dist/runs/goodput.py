"""Splits a run's time into steps that count and what interruptions cost.

A run's `events.jsonl` holds one line for each start and end of its training process, `metrics.jsonl`
one for each logged step. From both follows, without a clock or a file, where the wall time went.
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
    """Seconds of a run, from its first start to its last sign of life."""

    wall_s: float
    useful_s: float
    """Steps that count, each once."""
    redo_s: float
    """Steps whose result was lost and that were done again."""
    load_s: float
    """Reading checkpoints back."""
    restart_s: float
    """From the beginning of a process to its first step, without `load_s`; the first start counts too."""
    down_s: float
    """From the end of a process to the beginning of the next. A process that was killed leaves no end:
    then from its last logged step on."""

    @property
    def goodput(self) -> float:
        """Share of the wall time that went into steps that count."""
        return self.useful_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def rest_s(self) -> float:
        """What is left over: checkpoints being saved, steps broken off."""
        return self.wall_s - self.useful_s - self.redo_s - self.load_s - self.restart_s - self.down_s


def goodput(events: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Goodput:
    """Split a run's time; `rows` as they were written, with what was done twice.

    A step that is logged again counts by its later row. TrainingError where no start was logged.
    """
    starts, ends = _lives(events, rows)
    useful, redone = _steps(rows)
    load = sum(float(start["load_s"]) for start in starts)
    ready = sum(start["ready"] - start["began"] for start in starts)
    # Clocks of two hosts differ: a start that seems to come before the last end is no negative pause.
    down = sum(max(0.0, after["began"] - end) for end, after in zip(ends, starts[1:], strict=False))
    return Goodput(
        wall_s=ends[-1] - starts[0]["began"],
        useful_s=useful,
        redo_s=redone,
        load_s=load,
        restart_s=ready - load,
        down_s=down,
    )


def _lives(
    events: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[float]]:
    """Starts in order, and the end of each: as logged, else its last step, else its being ready."""
    events = list(events)
    starts = sorted((e for e in events if e["event"] == START), key=lambda e: float(e["began"]))
    if not starts:
        raise TrainingError(
            f"none of {len(events)} events is a start: the time of this run cannot be split; "
            "it was made by a version that logged none"
        )
    ends = []
    for start, until in zip(starts, [*(e["began"] for e in starts[1:]), float("inf")], strict=True):
        logged = [e["time"] for e in events if e["event"] == END and start["began"] <= e["time"] <= until]
        steps = [r["time"] for r in rows if "time" in r and start["ready"] <= r["time"] <= until]
        ends.append(float(max(logged or steps or [start["ready"]])))
    return starts, ends


def _steps(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds of the steps that count, and of those done again later.

    A row stands for the steps since the one before it; a process logs its first step, so a row that
    goes back stands for one. Stretches are counted and not steps: a damaged row may name any step.
    """
    total, before = 0.0, 0
    stretches: list[tuple[int, int, float]] = []
    for row in rows:
        step, seconds = int(row["step"]), float(row["step_s"])
        first = before + 1 if step > before else step
        stretches.append((first, step, seconds))
        total += (step - first + 1) * seconds
        before = step
    useful, covered = 0.0, _Covered()
    for first, last, seconds in reversed(stretches):  # of a step done twice the later row counts
        useful += covered.add(first, last) * seconds
    return useful, total - useful


class _Covered:
    """Steps that were counted, as stretches that do not touch, rising."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> int:
        """Cover a stretch; gives how many of its steps were not covered before."""
        # first - 1 and last + 1: stretches that touch are merged, so that the lists stay short.
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        overlapping = zip(self._firsts[low:high], self._lasts[low:high], strict=True)
        fresh = last - first + 1 - sum(max(0, min(last, b) - max(first, a) + 1) for a, b in overlapping)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]
        return fresh
