"""Which samples form the global batch of a step: a pure function of counts, seed, batch and step.

The order of an epoch: the shards are permuted, cut into windows of `window` shards, and the samples
of each window are permuted together. Epochs follow each other without a gap, so a batch may hold the
end of one and the beginning of the next: every epoch visits every sample exactly once. Packing has
already spread neighbours over all shards, so a window holds a random part of the set.

Only `make_batch_layout`, `rank_share` and `rank_slots` know of ranks: they divide a finished global batch.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import ConfigError, DataError

Ints = NDArray[np.int64]
# Purposes in the generators' keys; 3 is `augment`'s. Other numbers would give every run another order.
_SHARDS, _WINDOW = 1, 2


@dataclass(frozen=True)
class SampleRefs:
    """Places of samples in a shard set; arrays of one length, (n,) int64 each."""

    epoch: Ints
    shard: Ints
    """Position in the manifest's part."""
    index: Ints
    """Position in the shard."""
    sample: Ints
    """Position in the whole part: names the sample in counter-based draws."""

    def __getitem__(self, slots: slice) -> SampleRefs:
        return SampleRefs(self.epoch[slots], self.shard[slots], self.index[slots], self.sample[slots])

    def _reorder(self, order: Ints) -> SampleRefs:
        return SampleRefs(self.epoch[order], self.shard[order], self.index[order], self.sample[order])

    def __len__(self) -> int:
        return len(self.shard)


@dataclass(frozen=True)
class BatchPlan:
    """The order of all samples of a run."""

    counts: tuple[int, ...]
    """Samples of each shard."""
    seed: int
    global_batch: int
    window: int
    """Shards shuffled together."""

    def __post_init__(self) -> None:
        if self.samples <= 0:
            raise DataError("the shard set holds no samples: pack some images first")

    @property
    def samples(self) -> int:
        """Samples an epoch."""
        return sum(self.counts)

    def batch(self, step: int) -> SampleRefs:
        """The global batch of a step (0 is the first), in slot order: `global_batch` samples.

        Slots follow the shards: the samples of a window stand in the order of its shards, and where a
        batch spans two windows both are spread evenly over the slots. So a rank that takes a run of
        neighbouring slots reads the same few shards all through a window.
        """
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch)
        epochs, places = np.divmod(positions, self.samples)
        parts = [self._spread(int(e), places[epochs == e]) for e in np.unique(epochs)]
        shard, index, fraction = (np.concatenate(column) for column in zip(*parts, strict=True))
        # Stable, so that equal fractions keep one order, on every machine.
        slots = np.argsort(fraction, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return SampleRefs(epochs, shard, index, starts[shard] + index)._reorder(slots)

    def windows(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, window) pairs that a step reads from, in order."""
        first, last = step * self.global_batch, (step + 1) * self.global_batch - 1
        pairs: list[tuple[int, int]] = []
        for epoch in range(first // self.samples, last // self.samples + 1):
            bounds = _epoch_order(self.counts, self.seed, self.window, epoch)[1]
            low = max(first - epoch * self.samples, 0)
            high = min(last - epoch * self.samples, self.samples - 1)
            a, b = np.searchsorted(bounds, [low, high], side="right") - 1
            pairs += [(epoch, w) for w in range(int(a), int(b) + 1)]
        return pairs

    def window_shards(self, epoch: int, window: int) -> list[int]:
        """The shards of a window."""
        order = _epoch_order(self.counts, self.seed, self.window, epoch)[0]
        return [int(s) for s in order[window * self.window : (window + 1) * self.window]]

    def _spread(self, epoch: int, places: Ints) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """Shard and index of rising places in an epoch, and how far along the slots each stands (0 to 1)."""
        bounds = _epoch_order(self.counts, self.seed, self.window, epoch)[1]
        which = np.searchsorted(bounds, places, side="right") - 1
        shard, index = np.empty_like(places), np.empty_like(places)
        fraction = np.empty(len(places))
        for window in np.unique(which):
            here = which == window
            rank, shards, indices = _window_order(self.counts, self.seed, self.window, epoch, int(window))
            local = places[here] - bounds[window]
            local = local[np.argsort(rank[local], kind="stable")]
            shard[here], index[here] = shards[local], indices[local]
            # Half a step in: samples of two windows then mix evenly, and neither has all first or last
            # slots.
            fraction[here] = (np.arange(len(local)) + 0.5) / len(local)
        return shard, index, fraction


def generator(seed: int, purpose: int, epoch: int, item: int) -> np.random.Generator:
    """A counter-based generator: the same four numbers always draw the same."""
    # Philox needs no state from draw to draw: any process finds sample n of epoch e without drawing the
    # others. The two lowest words of the counter stay free for the draws themselves, so that no two items
    # overlap.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, item, epoch]))


_local = threading.local()


def sample_generator(seed: int, purpose: int, epoch: int, item: int) -> np.random.Generator:
    """The same as `generator`, in a fifth of the time. It is valid until this thread's next call."""
    # Making a generator takes most of the time. So each thread keeps one, and sets its state anew.
    if not hasattr(_local, "draw"):
        _local.draw = np.random.Generator(np.random.Philox())
        _local.state = _local.draw.bit_generator.state
        _local.key, _local.counter = (_local.state["state"][name] for name in ("key", "counter"))
    _local.key[:] = seed, purpose
    _local.counter[:] = 0, 0, item, epoch
    _local.draw.bit_generator.state = _local.state
    draw: np.random.Generator = _local.draw
    return draw


@lru_cache(maxsize=4)
def _epoch_order(counts: tuple[int, ...], seed: int, window: int, epoch: int) -> tuple[Ints, Ints]:
    """The shards in their order, and the place where each window begins, followed by the end of the epoch."""
    order = generator(seed, _SHARDS, epoch, 0).permutation(len(counts))
    sizes = np.add.reduceat(np.asarray(counts)[order], np.arange(0, len(counts), window))
    return order, np.concatenate([[0], np.cumsum(sizes)])


@lru_cache(maxsize=8)
def _window_order(
    counts: tuple[int, ...], seed: int, window: int, epoch: int, which: int
) -> tuple[Ints, Ints, Ints]:
    """The samples of a window in their order: the shard's place in the window, the shard, the index in it."""
    order = _epoch_order(counts, seed, window, epoch)[0]
    shards = order[which * window : (which + 1) * window]
    sizes = np.asarray(counts)[shards]
    rank = np.repeat(np.arange(len(shards)), sizes)
    index = np.concatenate([np.arange(n) for n in sizes])
    shuffle = generator(seed, _WINDOW, epoch, which).permutation(len(rank))
    return rank[shuffle], shards[rank[shuffle]], index[shuffle]


@dataclass(frozen=True)
class BatchLayout:
    """How a global batch is divided: `world` ranks x `accumulation` passes of `micro` samples."""

    global_batch: int
    world: int
    micro: int
    accumulation: int

    @property
    def padded(self) -> int:
        """Slots, padding included."""
        return self.world * self.micro * self.accumulation

    @property
    def padding(self) -> int:
        """Slots that hold a sample of weight zero."""
        return self.padded - self.global_batch

    def describe(self) -> str:
        """One line for a person."""
        ranks = f"{self.world} rank{'s' * (self.world > 1)}"
        passes = f"{self.accumulation} pass{'es' * (self.accumulation > 1)}"
        text = f"{self.global_batch} = {ranks} x {passes} x {self.micro}"
        if self.padding:
            text += f", less {self.padding} of {self.padded} slots padded with weight 0"
        return text


def make_batch_layout(global_batch: int, world: int, micro_batch: int) -> BatchLayout:
    """The fewest passes with at most `micro_batch` samples each, then the least padding."""
    if min(global_batch, world, micro_batch) < 1:
        raise ConfigError(
            f"batch {global_batch}, ranks {world} and micro-batch {micro_batch} must all be at least 1"
        )
    # Passes first, then their size: 65 samples at most 64 a pass become 33 and 33, not 64 and 1 with 63
    # padded.
    share = -(-global_batch // world)
    accumulation = -(-share // micro_batch)
    return BatchLayout(global_batch, world, -(-share // accumulation), accumulation)


def rank_share(batch_layout: BatchLayout, first_rank: int, ranks: int = 1) -> slice:
    """The slots of neighbouring ranks in a whole step."""
    share = batch_layout.accumulation * batch_layout.micro
    return slice(first_rank * share, (first_rank + ranks) * share)


def rank_slots(batch_layout: BatchLayout, rank: int, micro_step: int) -> slice:
    """The slots of one forward pass of a rank; slots from `global_batch` on are padding."""
    start = (rank * batch_layout.accumulation + micro_step) * batch_layout.micro
    return slice(start, start + batch_layout.micro)


def batch_digest(keys: Sequence[str]) -> int:
    """Sum modulo 2^64 of the first 8 bytes (big-endian) of each key's sha256."""
    # A sum, because it does not depend on order: ranks add up theirs, at any world size.
    return sum(int.from_bytes(hashlib.sha256(k.encode()).digest()[:8], "big") for k in keys) % 2**64
