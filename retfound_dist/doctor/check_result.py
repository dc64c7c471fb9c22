"""The result of one check, and how the ranks of a run measure something together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

from retfound_dist.errors import RetfoundError
from retfound_dist.train.ranks.collectives import RankGroup

T = TypeVar("T")
Status = Literal["ok", "warning", "failed", "skipped"]
STATUSES: tuple[Status, ...] = ("failed", "warning", "ok", "skipped")
"""The worst first."""


@dataclass(frozen=True)
class CheckResult:
    """One line of the doctor."""

    name: str
    status: Status
    text: str
    """What was measured, and what it was compared with; or why the check was skipped."""
    value: float | None = None
    """The number that decides; None where there is none."""
    unit: str = ""
    what_to_do: str = ""
    """Empty where nothing is to be done."""

    def to_json(self) -> dict[str, Any]:
        """For `--json`; a value that is not finite is None, because JSON has no such numbers."""
        tree = asdict(self)
        if self.value is not None and not math.isfinite(self.value):
            tree["value"] = None
        return tree


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What one rank measured, or why it could not."""

    value: T | None
    fault: str = ""


def measure_on_ranks(group: RankGroup, measure: Callable[[], T]) -> list[Measured[T]]:
    """The measurement of each rank, in their order, on every rank; every rank must call it.

    `measure` calls no collective: one that fails on a rank would leave the others waiting.
    """
    try:
        result = Measured(measure())
    # A machine that is not as it should be fails in many ways, and each is a result and not an end.
    except (RetfoundError, OSError, RuntimeError, MemoryError, ValueError) as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        result = Measured(None, text)
    return group.gather(result)


def first_fault(name: str, measured: Sequence[Measured[Any]], what_to_do: str) -> CheckResult | None:
    """A failed check where a rank could not measure; None where all could."""
    faults = [(rank, result.fault) for rank, result in enumerate(measured) if result.fault]
    if not faults:
        return None
    rank, fault = faults[0]
    more = f" (and {len(faults) - 1} more ranks)" if len(faults) > 1 else ""
    return CheckResult(name, "failed", f"rank {rank}: {fault}{more}", what_to_do=what_to_do)


def values_of(measured: Sequence[Measured[T]]) -> list[T]:
    """The values of all ranks that could measure."""
    return [result.value for result in measured if result.value is not None]
