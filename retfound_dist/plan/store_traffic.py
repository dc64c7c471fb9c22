"""Counts how much each node reads from the store, from the order in which a run reads its shards. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout, rank_share
from retfound_dist.stream.shard_cache import PART_BYTES

STEPS = 256
"""Most steps that are counted. Of a longer epoch, the first windows represent all others."""


@dataclass(frozen=True)
class NodeReads:
    """What one node reads: the mean of all nodes."""

    epoch_bytes: float
    """In the first epoch; in every epoch where the cache cannot hold the set."""
    epoch_requests: float
    copies: float
    """Number of nodes that read the same shard, on average."""
    window_bytes: float
    """Three windows, the most that a node stores at a time without a larger cache."""


def node_reads(plan: BatchPlan, sizes: Sequence[int], nodes: int, ranks_per_node: int) -> NodeReads:
    """Count the reads of each of `nodes` nodes; `sizes`: bytes of each shard of the plan."""
    copies = 1.0 if nodes == 1 else _nodes_per_shard(plan, nodes, ranks_per_node)
    requests = sum(math.ceil(size / PART_BYTES) + 1 for size in sizes)
    largest = sum(sorted(sizes)[-plan.window :])
    share = copies / nodes
    # A node stores at most three windows at a time (docs/stream.md).
    window_bytes = min(sum(sizes), 3 * largest * min(1.0, share))
    return NodeReads(share * sum(sizes), share * requests, copies, window_bytes)


def _nodes_per_shard(plan: BatchPlan, nodes: int, ranks_per_node: int) -> float:
    """Number of nodes that read a shard: the mean over the shards of the counted steps."""
    world = nodes * ranks_per_node
    layout = make_batch_layout(plan.global_batch, world, plan.global_batch)
    shards_by_node: list[set[int]] = [set() for _ in range(nodes)]
    for step in _counted_steps(plan):
        shards = plan.batch(step).shard
        for node in range(nodes):
            share = rank_share(layout, node * ranks_per_node, ranks_per_node)
            shards_by_node[node] |= set(np.unique(shards[share]).tolist())
    all_shards = set().union(*shards_by_node)
    return sum(map(len, shards_by_node)) / max(1, len(all_shards))


def _counted_steps(plan: BatchPlan) -> range:
    """All steps of a short epoch, else steps of its first windows: at most `STEPS`, evenly spread."""
    epoch = max(1, plan.samples // plan.global_batch)
    if epoch <= STEPS:
        return range(epoch)
    window = plan.window * plan.samples / len(plan.counts)
    last = max(1, math.ceil(window / plan.global_batch))
    last *= max(1, STEPS // 4 // last)
    last = min(last, epoch)
    return range(0, last, max(1, last // STEPS))
