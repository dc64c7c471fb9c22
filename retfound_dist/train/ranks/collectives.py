"""All ranks of a run: what they add up, hand around and decide together."""

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
    hosts: Any = field(default=None, compare=False)
    """A gloo group of all ranks for what must not wait for a device; None: the default group."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over ranks, in place."""
        if self.world.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """One picklable value of each rank, on every rank."""
        found: list[Any] = [value]
        if self.world.size > 1:
            found = [None] * self.world.size
            dist.all_gather_object(found, value, group=self.hosts)
        return found

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.world.size > 1:
            dist.broadcast_object_list(box, src=0, group=self.hosts)
        return box[0]

    def on_main(self, function: Callable[[], T]) -> T:
        """What a function gives, or its RetfoundError, on every rank; it is called on rank 0 alone."""
        found: T | None = None
        fault: RetfoundError | None = None
        if self.world.is_main:
            try:
                found = function()
            except RetfoundError as error:
                fault = error
        shared: tuple[T, RetfoundError | None] = self.share((found, fault))
        if shared[1]:
            raise shared[1]
        return shared[0]

    def spread(self, model: nn.Module) -> None:
        """Rank 0's parameters and buffers, on every rank; the model is on this group's device."""
        if self.world.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)


class DelayedFlags:
    """Flags of all ranks, added up: what is cast at one step is known at the next, so nobody waits."""

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._cast: Tensor | None = None
        self._work: Any = None

    def cast(self, flags: Sequence[int]) -> list[int]:
        """Cast this step's flags; gives the sums of the step before (zeros the first time)."""
        sums = self._counted() or [0] * len(flags)
        self._cast = torch.tensor(flags, dtype=torch.int64)
        if self._group.world.size > 1:
            self._work = dist.all_reduce(self._cast, group=self._group.hosts, async_op=True)
        return sums

    def end(self) -> None:
        """Wait for what is under way; every rank calls it after the same step."""
        self._counted()

    def _counted(self) -> list[int]:
        if self._work is not None:
            self._work.wait()
        found = [] if self._cast is None else [int(n) for n in self._cast.tolist()]
        self._cast = self._work = None
        return found
