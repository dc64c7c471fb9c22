"""Finds steps that went wrong: the loss or the gradient was not finite, or the loss leapt.

A step whose gradient is not finite leaves the weights as they were, on every rank. Here such steps are
counted and named with their samples, and so are leaps of the loss. All of it happens at logged steps, where
the ranks and the device are waited for anyhow.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from retfound_dist.errors import TrainingError
from retfound_dist.train.ranks.collectives import RankGroup

LEAP, MEMORY, LEAST = 8.0, 200, 50
"""A loss leaps where it is LEAP times the usual spread above the median of the last MEMORY losses.

Nothing leaps while fewer than LEAST are known.
"""


@dataclass
class StepRecord:
    """What one step of this rank leaves until the next logged step."""

    step: int
    """Counted from 1."""
    loss: Tensor
    """Sum of this rank's samples' losses, fp64, on the device."""
    grad_norm: Tensor
    """Of the whole gradient; infinite where the step was skipped."""
    digest: int
    keys: list[str] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    """Of this rank's samples, each micro-batch's with its padding."""

    def suspects(self) -> list[str]:
        """Keys of this rank's samples whose own loss is not finite."""
        if not self.losses:
            return []
        flat = torch.cat(self.losses).isfinite().cpu().tolist()
        return [key for key, good in zip(self.keys, flat, strict=False) if not good]


@dataclass(frozen=True)
class StepSummary:
    """The steps since the last logged one, over all ranks."""

    losses: list[float]
    """Mean over the global batch, of each step."""
    grad_norm: float | None
    """Of the last step; None where it was skipped."""
    anomalies: list[dict[str, Any]]
    """Lines for anomalies.jsonl."""


class Anomalies:
    """Watches the losses of a run; every rank has one and finds the same."""

    def __init__(self, budget: int, global_batch: int, before: Sequence[Mapping[str, Any]] = ()) -> None:
        """`before`: lines of anomalies.jsonl from earlier starts of the run."""
        self._budget, self._batch = budget, global_batch
        self._skipped = {row["step"] for row in before if row["kind"] == "skipped"}
        self._recent: deque[float] = deque(maxlen=MEMORY)

    def state(self) -> list[float]:
        """What a later start of the run needs: the last losses."""
        return list(self._recent)

    def load_state(self, losses: Sequence[float]) -> None:
        """Go on from the last losses of an earlier start."""
        self._recent.extend(losses)

    @property
    def skipped(self) -> int:
        """Steps that left the weights as they were, so far."""
        return len(self._skipped)

    def summarize(self, records: Sequence[StepRecord], group: RankGroup) -> StepSummary:
        """Sum up the steps over all ranks; every rank must call it. Waits for the device."""
        # Two sums for all steps, so a logged step costs two waits however many steps lie behind it.
        losses = (group.sum(torch.stack([r.loss for r in records])) / self._batch).tolist()
        norms = torch.stack([r.grad_norm.to(group.device, torch.float64) for r in records]).tolist()
        anomalies = []
        for record, loss, norm in zip(records, losses, norms, strict=True):
            kind = self._kind(loss, norm)
            if kind == "skipped":
                self._skipped.add(record.step)
            if kind:
                numbers = {"loss": _finite(loss), "grad_norm": _finite(norm)}
                anomalies.append({"kind": kind, "step": record.step, **numbers, **_keys(record, group)})
            # Leaps too: where the loss stays at its new height, that is the usual one after a while.
            if math.isfinite(loss):
                self._recent.append(loss)
        return StepSummary(losses, _finite(norms[-1]), anomalies)

    def check(self) -> None:
        """TrainingError when too many steps were skipped; called once their lines are written."""
        if self.skipped > self._budget:
            last = max(self._skipped)
            raise TrainingError(
                f"{self.skipped} steps had a loss or gradient that was not finite, more than "
                f"train.bad_step_budget={self._budget}; the last is step {last}: look at it with "
                f"`retfound batch CONFIG --step {last} --out batch.png`, or lower optim.base_lr; "
                "anomalies.jsonl names the samples"
            )

    def _kind(self, loss: float, norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "skipped"
        if len(self._recent) < LEAST:
            return ""
        # Median and median deviation, not mean and standard deviation: one leap would move those for 200
        # steps.
        median = statistics.median(self._recent)
        spread = statistics.median(abs(value - median) for value in self._recent)
        # Where the last losses are all alike, a thousandth of them stands for the spread.
        return "spike" if loss - median > LEAP * max(spread, 1e-3 * abs(median)) else ""


def _keys(record: StepRecord, group: RankGroup) -> dict[str, list[str]]:
    parts = group.gather((record.keys, record.suspects()))
    return {
        "keys": [key for keys, _ in parts for key in keys],
        "suspects": [key for _, suspects in parts for key in suspects],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
