"""How much each node reads from the store, counted from the order in which a run reads its shards. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout, rank_share
from retfound_dist.stream.shard_cache import PART_BYTES

STEPS = 256
"""Steps that are counted: the first windows of an epoch stand for all."""


@dataclass(frozen=True)
class Reads:
    """Of one node, the mean of all."""

    epoch_bytes: float
    """In the first epoch, and in every one without a cache that holds the set."""
    epoch_requests: float
    copies: float
    """Nodes that read a shard."""
    window_bytes: float
    """Three windows, which it may hold at a time."""


def node_reads(plan: BatchPlan, sizes: Sequence[int], nodes: int, ranks_per_node: int) -> Reads:
    """Reads of each of some nodes; `sizes`: bytes of each shard of the plan."""
    copies = 1.0 if nodes == 1 else _copies(plan, nodes, ranks_per_node)
    requests = sum(math.ceil(size / PART_BYTES) + 1 for size in sizes)
    largest = sum(sorted(sizes)[-plan.window :])
    share = copies / nodes
    # A node holds at most three windows at a time (docs/stream.md).
    cached = min(sum(sizes), 3 * largest * min(1.0, share))
    return Reads(share * sum(sizes), share * requests, copies, cached)


def _copies(plan: BatchPlan, nodes: int, ranks_per_node: int) -> float:
    """How many nodes read a shard, in the mean of the shards that the first steps read from."""
    world = nodes * ranks_per_node
    cut = make_batch_layout(plan.global_batch, world, plan.global_batch)
    seen: list[set[int]] = [set() for _ in range(nodes)]
    for step in _steps(plan):
        shards = plan.batch(step).shard
        for node in range(nodes):
            share = rank_share(cut, node * ranks_per_node, ranks_per_node)
            seen[node] |= set(np.unique(shards[share]).tolist())
    every = set().union(*seen)
    return sum(map(len, seen)) / max(1, len(every))


def _steps(plan: BatchPlan) -> range:
    """The steps of the first window or windows, at most `STEPS` of them, evenly spread."""
    window = plan.window * plan.samples / len(plan.counts)
    last = max(1, math.ceil(window / plan.global_batch))
    last *= max(1, STEPS // 4 // last)
    last = min(last, max(1, plan.samples // plan.global_batch))
    return range(0, last, max(1, last // STEPS))
