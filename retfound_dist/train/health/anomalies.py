"""Steps that went wrong: the loss or the gradient was not finite, or the loss leapt.

DeepSpeed leaves the weights alone in a step whose gradient is not finite, on every rank. Here such steps are
counted and named with their samples, and so are leaps of the loss; the reckoning comes with each logged step.
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
"""A leap: so many times the usual spread above the median of the last losses; so many at most, at least."""


@dataclass
class StepRecord:
    """What one step of this rank leaves until it is reckoned with."""

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
    """What the steps since the last reckoning came to."""

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
        """All ranks together; the device is waited for."""
        losses = (group.sum(torch.stack([r.loss for r in records])) / self._batch).tolist()
        norms = torch.stack([r.grad_norm.to(group.device, torch.float64) for r in records]).tolist()
        found = []
        for record, loss, norm in zip(records, losses, norms, strict=True):
            kind = self._kind(loss, norm)
            if kind == "skipped":
                self._skipped.add(record.step)
            if kind:
                numbers = {"loss": _finite(loss), "grad_norm": _finite(norm)}
                found.append({"kind": kind, "step": record.step, **numbers, **_keys(record, group)})
            if math.isfinite(loss):
                self._recent.append(loss)
        return StepSummary(losses, _finite(norms[-1]), found)

    def check(self) -> None:
        """TrainingError when too many steps were skipped; after what was found has been written down."""
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
        middle = statistics.median(self._recent)
        spread = statistics.median(abs(value - middle) for value in self._recent)
        return "spike" if loss - middle > LEAP * max(spread, 1e-3 * abs(middle)) else ""


def _keys(record: StepRecord, group: RankGroup) -> dict[str, list[str]]:
    parts = group.gather((record.keys, record.suspects()))
    return {
        "keys": [key for keys, _ in parts for key in keys],
        "suspects": [key for _, suspects in parts for key in suspects],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
