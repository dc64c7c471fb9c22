"""How well the stream shuffles, and how much it reads from the store: computed from the plan, without a GPU.

    make bench-shuffle         (or: python -m benchmarks.shuffle_quality)

182,980 B-scans of 600 volumes, 50 kB each, in shards of 64 MB. Quality: distinct volumes in a global
batch of 1,792, over that of a uniform permutation of all samples, mean over one epoch. Fetches: the
shards that each node's ranks read, counted step by step, when each node has 8 ranks.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Row, finish
from retfound_dist.config.schema import Data
from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout, rank_share
from retfound_dist.stream.prefetch import Lookahead
from retfound_dist.stream.shard_cache import PART_BYTES
from shards.images.scan import Scan
from shards.planning.pack_plan import pack_order

SAMPLES, VOLUMES, BATCH, BYTES, SHARD_BYTES = 182_980, 600, 1792, 50_000, 64_000_000
RANKS = 8
NODES = (1, 2, 4, 8, 16, 32, 64)
Ints = NDArray[np.int64]


def counts() -> tuple[int, ...]:
    """Samples of each shard."""
    full = SHARD_BYTES // BYTES
    return (*[full] * (SAMPLES // full), SAMPLES % full)


def packed(mixed: bool) -> Ints:
    """The volume of each sample in shard order: as `retfound pack` shuffles them, or in original order."""
    volumes = np.arange(SAMPLES) * VOLUMES // SAMPLES
    if not mixed:
        return volumes
    scans = [Scan(key=f"{n:06d}", read=bytes, origin="", source="") for n in range(SAMPLES)]
    return volumes[[int(scan.key) for scan in pack_order(scans, seed=0)]]


def distinct(batches: Sequence[Ints]) -> float:
    """Mean number of volumes in a batch."""
    return statistics.mean(len(np.unique(batch)) for batch in batches)


def quality(volumes: Ints, window: int) -> float:
    """Distinct volumes in a batch, over those with a uniform permutation."""
    plan = BatchPlan(counts(), 0, BATCH, window)
    steps = range(SAMPLES // BATCH)
    uniform = np.random.default_rng(0).permutation(SAMPLES)[: len(steps) * BATCH].reshape(-1, BATCH)
    return distinct([volumes[plan.batch(k).sample] for k in steps]) / distinct(list(volumes[uniform]))


def max_node_bytes(plan: BatchPlan, nodes: int) -> float:
    """The most bytes of shards that one node stores at any step of an epoch."""
    layout = make_batch_layout(BATCH, nodes * RANKS, BATCH)
    max_bytes = 0
    for node in sorted({0, nodes // 2, nodes - 1}):
        share = rank_share(layout, node * RANKS, RANKS)
        lookahead = Lookahead(plan, share, share, SAMPLES // BATCH)
        for step in range(0, SAMPLES // BATCH, 3):
            max_bytes = max(
                max_bytes, sum(plan.counts[s] * BYTES for s in lookahead.needed_shards(step).node)
            )
    return max_bytes


def fetched(plan: BatchPlan, nodes: int) -> list[set[int]]:
    """The shards that each node reads in an epoch."""
    layout = make_batch_layout(BATCH, nodes * RANKS, BATCH)
    shards_by_node: list[set[int]] = [set() for _ in range(nodes)]
    for step in range(SAMPLES // BATCH):
        batch = plan.batch(step)
        for node in range(nodes):
            shards_by_node[node] |= set(batch[rank_share(layout, node * RANKS, RANKS)].shard.tolist())
    return shards_by_node


def qualities(window: int) -> Iterator[Row]:
    """One row for each way of packing and each window."""
    for name, mixed in (("as packed", True), ("had it been packed in order", False)):
        volumes = packed(mixed)
        for size in (4, window, 48):
            value = round(quality(volumes, size), 3)
            yield Row(f"quality {name}, window {size}", value, "", f"{2 * size * SHARD_BYTES / 1e9:.1f} GB")


def costs(window: int) -> Iterator[Row]:
    """One row for each number of nodes."""
    plan = BatchPlan(counts(), 0, BATCH, window)
    for nodes in NODES:
        shards = fetched(plan, nodes)
        copies = sum(len(shards_by_node) for shards_by_node in shards) / len(plan.counts)
        sizes = [[plan.counts[s] * BYTES for s in shards_by_node] for shards_by_node in shards]
        gets = statistics.mean(sum(-(-size // PART_BYTES) + 1 for size in each) for each in sizes)
        yield Row(
            f"{nodes} node{'s' * (nodes > 1)}: each reads",
            round(statistics.mean(sum(each) for each in sizes) / 1e9, 2),
            "GB an epoch",
            f"{gets:,.0f} requests, {copies:.1f} nodes a shard, "
            f"holds <= {max_node_bytes(plan, nodes) / 1e9:.1f} GB",
        )


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    window = int(Data.__dataclass_fields__["window_shards"].default)
    rows = [*qualities(window), *costs(window)]
    size = f"{SAMPLES * BYTES / 1e9:.1f} GB in {len(counts())} shards"
    title = f"{SAMPLES:,} samples ({size}), {VOLUMES} volumes, global batch {BATCH:,}"
    ratios = {"distinct_volumes_vs_uniform": rows[1].value, "packed_in_order_vs_uniform": rows[4].value}
    finish("shuffle", title, rows, ratios, ("numpy",), columns=("value", "unit", "disk; requests"))


if __name__ == "__main__":
    main()
