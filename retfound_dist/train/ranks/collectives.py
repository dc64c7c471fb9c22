"""Collectives: sums, exchanges and decisions of all ranks of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from retfound_dist.errors import RetfoundError
from retfound_dist.runtime.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class RankGroup:
    """The process group and this process's device."""

    world: World
    device: torch.device
    cpu_group: Any = field(default=None, compare=False)
    """A gloo group of all ranks, for exchanges that must not wait for a device; None: the default group."""
    cores: float = 1.0
    """This rank's share of its host's cores."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over ranks, in place."""
        if self.world.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """One picklable value of each rank, on every rank."""
        values: list[Any] = [value]
        if self.world.size > 1:
            values = [None] * self.world.size
            # With NCCL the pickled value would pass through the GPU, and wait for it.
            dist.all_gather_object(values, value, group=self.cpu_group)
        return values

    def broadcast(self, value: Any) -> Any:
        """Rank 0's picklable value, on every rank; the values of other ranks are not used."""
        box = [value]
        if self.world.size > 1:
            dist.broadcast_object_list(box, src=0, group=self.cpu_group)
        return box[0]

    def run_on_main(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; every rank gets its result, or its RetfoundError."""
        result: T | None = None
        fault: RetfoundError | None = None
        if self.world.is_main:
            try:
                result = function()
            # Other errors are bugs: they end rank 0, and `rank_failures` reports them to the others.
            except RetfoundError as error:
                fault = error
        outcome: tuple[T, RetfoundError | None] = self.broadcast((result, fault))
        if outcome[1]:
            raise outcome[1]
        return outcome[0]

    def broadcast_model(self, model: nn.Module) -> None:
        """Rank 0's parameters and buffers, on every rank; the model is on this group's device."""
        if self.world.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)


class DelayedFlags:
    """Sums of flags over all ranks: the sum of one step is read at the next, so no rank waits."""

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._sent: Tensor | None = None
        self._work: Any = None

    def exchange(self, flags: Sequence[int]) -> list[int]:
        """Send this step's flags; returns the sums of the step before (zeros the first time)."""
        sums = self.wait() or [0] * len(flags)
        self._sent = torch.tensor(flags, dtype=torch.int64)
        if self._group.world.size > 1:
            # Over gloo on the host, while the next step runs: on the device it would queue behind that step.
            self._work = dist.all_reduce(self._sent, group=self._group.cpu_group, async_op=True)
        return sums

    def wait(self) -> list[int]:
        """Wait for the pending exchange; returns its sums. Every rank calls it after the same step."""
        if self._work is not None:
            self._work.wait()
        sums = [] if self._sent is None else [int(n) for n in self._sent.tolist()]
        self._sent = self._work = None
        return sums
