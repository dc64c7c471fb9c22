"""Decides when a run goes wrong: a probe is worse than the starting weights', or worse than the best before.

Worse: by more than the paired 95 % interval, and by more than a set minimum. Both checkpoints are scored on
the same bootstrap resamples of the same images, and the interval of the difference lies below 0. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retfound_dist.config.schema import Alarm
from retfound_dist.evaluate.scores import bootstrap, wording
from retfound_dist.evaluate.scores.metrics import Floats

Kind = Literal["worse_than_start", "falling"]
START = "start"


@dataclass(frozen=True)
class Point:
    """One checkpoint's probe on one score."""

    step: int
    """0: the starting weights."""
    value: float | None
    drawn_R: Floats
    """The score in each resample."""


@dataclass(frozen=True)
class Gap:
    """By how much a checkpoint is above another."""

    other: int
    difference: float | None
    ci95: bootstrap.Interval
    least: float
    """The smallest difference that counts."""

    @property
    def worse(self) -> bool:
        """Whether the whole interval is below 0, and the difference large enough to count."""
        if self.difference is None or self.ci95 is None:
            return False
        return self.ci95[1] < 0 and self.difference <= -self.least

    def describe(self) -> dict[str, Any]:
        """For watch.json."""
        return {"step": self.other, "difference": self.difference, "ci95": self.ci95, "worse": self.worse}


@dataclass(frozen=True)
class ComparedCheckpoint:
    """A checkpoint beside the starting weights and the best one before it; None where there is none."""

    point: Point
    to_start: Gap | None
    to_best: Gap | None


def judge(start: Point | None, points: Sequence[Point], least: float) -> list[ComparedCheckpoint]:
    """Every checkpoint, rising, beside what came before."""
    judged = []
    best: Point | None = None
    for point in points:
        to_start, to_best = (gap(point, other, least) if other else None for other in (start, best))
        judged.append(ComparedCheckpoint(point, to_start, to_best))
        # After the comparison: a checkpoint is compared with the best before it, never with itself.
        if point.value is not None and (best is None or best.value is None or point.value > best.value):
            best = point
    return judged


def gap(point: Point, other: Point, least: float) -> Gap:
    """The paired difference of two checkpoints."""
    if point.value is None or other.value is None:
        return Gap(other.step, None, None, least)
    span = bootstrap.paired(point.drawn_R, other.drawn_R)["ci95"]
    return Gap(other.step, point.value - other.value, span, least)


def alarms(judged: Sequence[ComparedCheckpoint], rule: Alarm) -> list[dict[str, Any]]:
    """The rows of alarms.jsonl: a checkpoint and kind each, from the `patience`-th in a row on."""
    rows: list[dict[str, Any]] = []
    in_a_row: dict[Kind, int] = {"worse_than_start": 0, "falling": 0}
    for checkpoint in judged:
        gaps: Mapping[Kind, Gap | None] = {
            "worse_than_start": checkpoint.to_start,
            "falling": checkpoint.to_best,
        }
        for kind, gap_to_other in gaps.items():
            # A checkpoint that is not worse begins the count anew, so one bad draw raises no alarm where
            # patience > 1.
            in_a_row[kind] = in_a_row[kind] + 1 if gap_to_other and gap_to_other.worse else 0
            if gap_to_other and in_a_row[kind] >= rule.patience:
                rows.append(_row(kind, checkpoint.point, gap_to_other, rule))
    return rows


def _row(kind: Kind, point: Point, gap_to_other: Gap, rule: Alarm) -> dict[str, Any]:
    return {
        "step": point.step,
        "kind": kind,
        "method": rule.method,
        "metric": rule.metric,
        "value": point.value,
        "against_step": gap_to_other.other,
        "difference": gap_to_other.difference,
        "ci95": gap_to_other.ci95,
        "message": wording.alarm(
            kind, point.step, gap_to_other.other, rule, gap_to_other.difference, gap_to_other.ci95
        ),
    }
