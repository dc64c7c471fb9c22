"""The samples in the global batch of a step: a pure function of counts, seed, batch size and step.

The order of an epoch: the shards are permuted and divided into windows of `window` shards. The samples of
each window are permuted together. Epochs follow each other without a gap, so a batch may contain the end of
one and the beginning of the next. Every epoch visits every sample exactly once. Packing has already spread
neighbours over all shards, so a window is a random part of the set.

The plan does not depend on ranks. `make_batch_layout`, `rank_share` and `rank_slots` divide a global batch
among them.
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
# Purposes in the generators' keys; `augment` uses 3. With other numbers every run would have another order.
_SHARDS, _WINDOW = 1, 2


@dataclass(frozen=True)
class SampleRefs:
    """References to samples of a shard set; arrays of equal length, (n,) int64 each."""

    epoch: Ints
    shard: Ints
    """Position in the manifest's part."""
    index: Ints
    """Position in the shard."""
    sample: Ints
    """Position in the whole part: identifies the sample for the random generators."""

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
    """Number of shards that are shuffled together."""

    def __post_init__(self) -> None:
        if self.samples <= 0:
            raise DataError("the shard set holds no samples: pack some images first")

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return sum(self.counts)

    def batch(self, step: int) -> SampleRefs:
        """The global batch of a step (0 is the first): `global_batch` samples, in the order of their slots.

        The samples of a window are sorted by shard. If a batch spans two windows, both are spread evenly over
        the slots. A rank has consecutive slots, so it reads the same few shards throughout a window.
        """
        # Positions in the sequence of all epochs, and then places in their epoch.
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch)
        epochs, places = np.divmod(positions, self.samples)
        parts = [self._locate(int(e), places[epochs == e]) for e in np.unique(epochs)]
        shard, index, slot_fraction = (np.concatenate(column) for column in zip(*parts, strict=True))
        # A sample's fraction says where in the batch its slot is: 0 is the first slot, 1 the end. Stable, so
        # that equal fractions have the same order on every machine.
        order = np.argsort(slot_fraction, kind="stable")
        first_samples = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return SampleRefs(epochs, shard, index, first_samples[shard] + index)._reorder(order)

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

    def _locate(self, epoch: int, places: Ints) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """For n samples at ascending places (n,) of an epoch: their shards, indices in these, slot fractions.

        All have the shape (n,). A slot fraction is the relative position of a sample's slot in the batch,
        between 0 and 1.
        """
        bounds = _epoch_order(self.counts, self.seed, self.window, epoch)[1]
        window_of_place = np.searchsorted(bounds, places, side="right") - 1
        shard, index = np.empty_like(places), np.empty_like(places)
        slot_fraction = np.empty(len(places))
        for window in np.unique(window_of_place):
            in_window = window_of_place == window
            rank, shards, indices = _window_order(self.counts, self.seed, self.window, epoch, int(window))
            local = places[in_window] - bounds[window]
            local = local[np.argsort(rank[local], kind="stable")]
            shard[in_window], index[in_window] = shards[local], indices[local]
            # + 0.5, so that samples of two windows mix evenly and neither has all first or last slots.
            slot_fraction[in_window] = (np.arange(len(local)) + 0.5) / len(local)
        return shard, index, slot_fraction


def generator(seed: int, purpose: int, epoch: int, item: int) -> np.random.Generator:
    """A counter-based generator: the same four numbers always give the same random numbers."""
    # Philox needs no state from earlier draws: any process can draw for sample n of epoch e without the
    # others. The two lowest words of the counter are for the draws themselves, so that no two items overlap.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, item, epoch]))


_local = threading.local()


def sample_generator(seed: int, purpose: int, epoch: int, item: int) -> np.random.Generator:
    """The same as `generator`, in a fifth of the time. It is valid until this thread's next call."""
    # Creating a generator takes most of the time. So each thread keeps one and sets its state.
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
    """The order of the shards, and the place where each window begins, followed by the end of the epoch."""
    order = generator(seed, _SHARDS, epoch, 0).permutation(len(counts))
    sizes = np.add.reduceat(np.asarray(counts)[order], np.arange(0, len(counts), window))
    return order, np.concatenate([[0], np.cumsum(sizes)])


@lru_cache(maxsize=8)
def _window_order(
    counts: tuple[int, ...], seed: int, window: int, epoch: int, number: int
) -> tuple[Ints, Ints, Ints]:
    """The samples of a window in order: the shard's position in the window, the shard, the index in it."""
    order = _epoch_order(counts, seed, window, epoch)[0]
    shards = order[number * window : (number + 1) * window]
    sizes = np.asarray(counts)[shards]
    rank = np.repeat(np.arange(len(shards)), sizes)
    index = np.concatenate([np.arange(n) for n in sizes])
    shuffle = generator(seed, _WINDOW, epoch, number).permutation(len(rank))
    return rank[shuffle], shards[rank[shuffle]], index[shuffle]


@dataclass(frozen=True)
class BatchLayout:
    """The division of a global batch: `world` ranks x `accumulation` passes x `micro` samples."""

    global_batch: int
    world: int
    micro: int
    accumulation: int

    @property
    def padded(self) -> int:
        """Number of slots, including padding."""
        return self.world * self.micro * self.accumulation

    @property
    def padding(self) -> int:
        """Number of slots with weight zero."""
        return self.padded - self.global_batch

    def describe(self) -> str:
        """One line for the user."""
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
    # First the number of passes, then their size: 65 samples with at most 64 a pass become 33 and 33, not 64
    # and 1 with 63 padded.
    share = -(-global_batch // world)
    accumulation = -(-share // micro_batch)
    return BatchLayout(global_batch, world, -(-share // accumulation), accumulation)


def rank_share(batch_layout: BatchLayout, first_rank: int, ranks: int = 1) -> slice:
    """The slots of consecutive ranks in a whole step."""
    share = batch_layout.accumulation * batch_layout.micro
    return slice(first_rank * share, (first_rank + ranks) * share)


def rank_slots(batch_layout: BatchLayout, rank: int, micro_step: int) -> slice:
    """The slots of one forward pass of a rank; slots from `global_batch` on are padding."""
    start = (rank * batch_layout.accumulation + micro_step) * batch_layout.micro
    return slice(start, start + batch_layout.micro)


def batch_digest(keys: Sequence[str]) -> int:
    """Sum modulo 2^64 of the first 8 bytes (big-endian) of each key's sha256."""
    # A sum, because it does not depend on the order: the ranks add their digests, at any world size.
    return sum(int.from_bytes(hashlib.sha256(k.encode()).digest()[:8], "big") for k in keys) % 2**64
