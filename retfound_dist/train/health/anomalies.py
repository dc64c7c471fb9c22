"""Finds anomalies: steps whose loss or gradient was not finite, and jumps of the loss.

A step whose gradient is not finite does not change the weights, on any rank. Such steps and jumps of the loss
are counted and logged with their samples. This happens only at logged steps, which wait for the ranks and the
device in any case.
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

SPIKE_FACTOR, HISTORY, MIN_HISTORY = 8.0, 200, 50
"""A loss is a spike if it is SPIKE_FACTOR times the usual spread above the median of the last HISTORY losses.

There are no spikes while fewer than MIN_HISTORY losses are known.
"""


@dataclass
class StepRecord:
    """One step of this rank, kept until the next logged step."""

    step: int
    """Counted from 1."""
    loss: Tensor
    """Sum of the losses of this rank's samples, fp64, on the device."""
    grad_norm: Tensor
    """Of the whole gradient; not finite if the step was skipped."""
    digest: int
    keys: list[str] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    """Of this rank's samples: one tensor for each micro-batch."""

    def suspects(self) -> list[str]:
        """Keys of this rank's samples whose own loss is not finite."""
        if not self.losses:
            return []
        finite = torch.cat(self.losses).isfinite().cpu().tolist()
        return [key for key, is_finite in zip(self.keys, finite, strict=False) if not is_finite]


@dataclass(frozen=True)
class StepSummary:
    """The steps since the last logged one, over all ranks."""

    losses: list[float]
    """Mean over the global batch, of each step."""
    grad_norm: float | None
    """Of the last step; None if it was skipped."""
    anomalies: list[dict[str, Any]]
    """Rows for anomalies.jsonl."""


class Anomalies:
    """Watches the losses of a run; every rank has one, with the same result."""

    def __init__(
        self, budget: int, global_batch: int, earlier_rows: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """`earlier_rows`: rows of anomalies.jsonl from earlier starts of the run."""
        self._budget, self._batch = budget, global_batch
        self._skipped = {row["step"] for row in earlier_rows if row["kind"] == "skipped"}
        self._recent: deque[float] = deque(maxlen=HISTORY)

    def state(self) -> list[float]:
        """The last losses, which a later start of the run needs."""
        return list(self._recent)

    def load_state(self, losses: Sequence[float]) -> None:
        """Continue from the last losses of an earlier start."""
        self._recent.extend(losses)

    @property
    def skipped(self) -> int:
        """Number of steps so far that did not change the weights."""
        return len(self._skipped)

    def summarize(self, records: Sequence[StepRecord], group: RankGroup) -> StepSummary:
        """Sum up the steps over all ranks; every rank must call it. Waits for the device."""
        # One sum for all steps, so the number of waits does not depend on the number of steps.
        losses = (group.sum(torch.stack([r.loss for r in records])) / self._batch).tolist()
        norms = torch.stack([r.grad_norm.to(group.device, torch.float64) for r in records]).tolist()
        anomalies = []
        for record, loss, norm in zip(records, losses, norms, strict=True):
            kind = self._anomaly_kind(loss, norm)
            if kind == "skipped":
                self._skipped.add(record.step)
            if kind:
                numbers = {"loss": _finite(loss), "grad_norm": _finite(norm)}
                anomalies.append(
                    {"kind": kind, "step": record.step, **numbers, **_sample_keys(record, group)}
                )
            # Spikes too: if the loss stays at its new height, that becomes the usual height after a while.
            if math.isfinite(loss):
                self._recent.append(loss)
        return StepSummary(losses, _finite(norms[-1]), anomalies)

    def check(self) -> None:
        """TrainingError if too many steps were skipped; called after their rows are written."""
        if self.skipped > self._budget:
            last = max(self._skipped)
            raise TrainingError(
                f"{self.skipped} steps had a loss or gradient that was not finite, more than "
                f"train.bad_step_budget={self._budget}; the last is step {last}: look at it with "
                f"`retfound batch CONFIG --step {last} --out batch.png`, or lower optim.base_lr; "
                "anomalies.jsonl names the samples"
            )

    def _anomaly_kind(self, loss: float, norm: float) -> str:
        """`skipped` for a loss or norm that is not finite, `spike` for a high loss, else empty."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "skipped"
        if len(self._recent) < MIN_HISTORY:
            return ""
        # Median and median deviation: one spike would change mean and standard deviation for 200 steps.
        median = statistics.median(self._recent)
        spread = statistics.median(abs(value - median) for value in self._recent)
        # At least a thousandth of the loss, for losses that are all equal.
        return "spike" if loss - median > SPIKE_FACTOR * max(spread, 1e-3 * abs(median)) else ""


def _sample_keys(record: StepRecord, group: RankGroup) -> dict[str, list[str]]:
    parts = group.gather((record.keys, record.suspects()))
    return {
        "keys": [key for keys, _ in parts for key in keys],
        "suspects": [key for _, suspects in parts for key in suspects],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
