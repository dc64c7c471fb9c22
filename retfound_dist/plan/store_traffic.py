"""Counts how much each node reads from the store, from the order in which a run reads its shards. Pure.

Shapes: N nodes, T steps, S shards that these steps read, B samples of a global batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout, rank_share
from retfound_dist.stream.prefetch import KEPT_STEPS
from retfound_dist.stream.shard_cache import PART_BYTES

STEPS = 256
"""Most steps that are counted. Of a longer epoch, the first windows represent all others."""
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class NodeReads:
    """What one node reads and stores."""

    epoch_bytes: float
    """The mean of all nodes in the first epoch; in every epoch where the cache cannot hold the set."""
    epoch_requests: float
    """The mean of all nodes in the first epoch."""
    copies: float
    """Number of nodes that read the same shard, on average."""
    stored_bytes: float
    """The most that any node stores at a time without a larger cache, in the counted steps. In other epochs,
    which have another order, it can be a shard more or less."""


def node_reads(plan: BatchPlan, sizes: Sequence[int], nodes: int, ranks_per_node: int) -> NodeReads:
    """Count the reads of each of `nodes` nodes; `sizes`: bytes of each shard of the plan."""
    counted = _counted_steps(plan)
    # One step more than is counted: its window is a new one, so a node also stores the window before.
    boundary = range(0, counted.step * (len(counted) + 1), counted.step)
    steps = _with_next_windows(plan, boundary)
    shards_S, reads_NTS = _shards_read(plan, steps, nodes, ranks_per_node)
    counted_NS = reads_NTS[:, : len(counted)].any(axis=1)
    copies = float(counted_NS.sum() / counted_NS.any(axis=0).sum())
    requests = sum(math.ceil(size / PART_BYTES) + 1 for size in sizes)
    share = copies / nodes
    stored_bytes = _most_stored_bytes(plan, steps, len(boundary), reads_NTS, np.asarray(sizes)[shards_S])
    return NodeReads(share * sum(sizes), share * requests, copies, stored_bytes)


def _shards_read(
    plan: BatchPlan, steps: range, nodes: int, ranks_per_node: int
) -> tuple[NDArray[np.int64], Flags]:
    """The shards (S,) of the windows of some steps; (N, T, S): whether a node reads a shard at a step."""
    windows = dict.fromkeys(window for step in steps for window in plan.windows(step))
    shards_S = np.unique([shard for window in windows for shard in plan.window_shards(*window)])
    reads_NTS = np.zeros((nodes, len(steps), len(shards_S)), dtype=bool)
    world = nodes * ranks_per_node
    layout = make_batch_layout(plan.global_batch, world, plan.global_batch)
    slots_of_node = rank_share(layout, 0, ranks_per_node).stop
    node_of_slot_B = np.arange(plan.global_batch) // slots_of_node
    for t, step in enumerate(steps):
        if nodes == 1:
            # In the steps of a window one node reads all its shards. This needs no batch, which takes longer.
            for window in plan.windows(step):
                reads_NTS[0, t, np.searchsorted(shards_S, plan.window_shards(*window))] = True
        else:
            reads_NTS[node_of_slot_B, t, np.searchsorted(shards_S, plan.batch(step).shard)] = True
    return shards_S, reads_NTS


def _most_stored_bytes(
    plan: BatchPlan, steps: range, counted: int, reads_NTS: Flags, sizes_S: NDArray[np.int64]
) -> float:
    """The most bytes that any node stores at any of the first `counted` steps; `sizes_S`: bytes of shards.

    A node stores the shards of the last `KEPT_STEPS` steps, and of all steps up to the end of the next
    window (`stream.prefetch.Lookahead`).
    """
    window_T = np.array([_last_window(plan, step) for step in steps])
    step_T = np.arange(counted)
    begin_T = np.maximum(0, step_T - KEPT_STEPS // steps.step)
    end_T = np.maximum(step_T + 2, np.searchsorted(window_T, window_T[:counted] + 2))
    end_T = np.minimum(end_T, len(steps))
    most = 0
    for reads_TS in reads_NTS:
        # Number of reads of each shard before a step, so that a difference counts those of any steps.
        before_TS = np.concatenate([np.zeros((1, len(sizes_S)), np.int32), reads_TS.cumsum(0, np.int32)])
        stored_TS = before_TS[end_T] > before_TS[begin_T]
        most = max(most, int((stored_TS @ sizes_S).max()))
    return float(most)


def _last_window(plan: BatchPlan, step: int) -> int:
    """The number of the last window that a step reads from, counted over all epochs."""
    epoch, window = plan.windows(step)[-1]
    return epoch * math.ceil(len(plan.counts) / plan.window) + window


def _with_next_windows(plan: BatchPlan, counted: range) -> range:
    """The counted steps, and behind them those up to the end of the last one's next window."""
    last = stop = counted[-1]
    while _last_window(plan, stop) < _last_window(plan, last) + 2 or stop < last + 2 * counted.step:
        stop += counted.step
    return range(0, stop, counted.step)


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
