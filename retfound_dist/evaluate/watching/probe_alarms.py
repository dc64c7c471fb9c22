"""Raises an alarm where the probe of a checkpoint is worse than the starting weights or an earlier best.

It is worse where the paired 95 % interval of the difference is below 0, and the difference is at least a set
minimum. Both checkpoints are scored on the same bootstrap resamples of the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retfound_dist.config.schema import Alarm
from retfound_dist.evaluate.scores import bootstrap, probe_wording
from retfound_dist.evaluate.scores.metrics import Floats

Kind = Literal["worse_than_start", "falling"]
START = "start"


@dataclass(frozen=True)
class Point:
    """One score of the probe of a checkpoint."""

    step: int
    """0: the starting weights."""
    value: float | None
    resampled_R: Floats
    """The score in each bootstrap resample."""


@dataclass(frozen=True)
class ScoreDifference:
    """The score of a checkpoint minus that of another one."""

    other_step: int
    difference: float | None
    ci95: bootstrap.Interval
    min_difference: float
    """The smallest difference that raises an alarm."""

    @property
    def worse(self) -> bool:
        """Whether the whole interval is below 0 and the difference is large enough."""
        if self.difference is None or self.ci95 is None:
            return False
        return self.ci95[1] < 0 and self.difference <= -self.min_difference

    def describe(self) -> dict[str, Any]:
        """The entry for watch.json."""
        return {
            "step": self.other_step,
            "difference": self.difference,
            "ci95": self.ci95,
            "worse": self.worse,
        }


@dataclass(frozen=True)
class ComparedCheckpoint:
    """A checkpoint compared with the starting weights and with the best one before it, where they exist."""

    point: Point
    to_start: ScoreDifference | None
    to_best: ScoreDifference | None


def compare_checkpoints(
    start: Point | None, points: Sequence[Point], min_difference: float
) -> list[ComparedCheckpoint]:
    """Compares each checkpoint, in rising order, with those before it."""
    compared = []
    best: Point | None = None
    for point in points:
        to_start, to_best = (
            compare(point, other, min_difference) if other else None for other in (start, best)
        )
        compared.append(ComparedCheckpoint(point, to_start, to_best))
        # After the comparison, so that a checkpoint is not compared with itself.
        if point.value is not None and (best is None or best.value is None or point.value > best.value):
            best = point
    return compared


def compare(point: Point, other: Point, min_difference: float) -> ScoreDifference:
    """The paired difference of two checkpoints."""
    if point.value is None or other.value is None:
        return ScoreDifference(other.step, None, None, min_difference)
    span = bootstrap.paired_difference(point.resampled_R, other.resampled_R)["ci95"]
    return ScoreDifference(other.step, point.value - other.value, span, min_difference)


def alarm_rows(compared: Sequence[ComparedCheckpoint], rule: Alarm) -> list[dict[str, Any]]:
    """The rows of alarms.jsonl: one for each checkpoint and kind, after `patience` worse ones in a row."""
    rows: list[dict[str, Any]] = []
    consecutive: dict[Kind, int] = {"worse_than_start": 0, "falling": 0}
    for checkpoint in compared:
        differences: Mapping[Kind, ScoreDifference | None] = {
            "worse_than_start": checkpoint.to_start,
            "falling": checkpoint.to_best,
        }
        for kind, difference in differences.items():
            # A checkpoint that is not worse resets the count, so one outlier raises no alarm if patience > 1.
            consecutive[kind] = consecutive[kind] + 1 if difference and difference.worse else 0
            if difference and consecutive[kind] >= rule.patience:
                rows.append(_alarm_row(kind, checkpoint.point, difference, rule))
    return rows


def _alarm_row(kind: Kind, point: Point, difference: ScoreDifference, rule: Alarm) -> dict[str, Any]:
    """The alarm as it is stored in watch.json."""
    return {
        "step": point.step,
        "kind": kind,
        "method": rule.method,
        "metric": rule.metric,
        "value": point.value,
        "against_step": difference.other_step,
        "difference": difference.difference,
        "ci95": difference.ci95,
        "message": probe_wording.alarm_message(
            kind, point.step, difference.other_step, rule, difference.difference, difference.ci95
        ),
    }
