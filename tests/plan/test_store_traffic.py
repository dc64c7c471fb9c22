"""What nodes read of a shard set in an epoch."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.cluster import DEVICES, Cluster
from retfound_dist.plan.data_facts import assumed_data
from retfound_dist.plan.run_plan import plan_run
from retfound_dist.plan.store_traffic import node_reads
from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout, rank_share
from retfound_dist.stream.prefetch import Lookahead
from tests import ROOT

OCT = str(ROOT / "configs/pretrain_vitl_oct.toml")


@pytest.mark.parametrize("nodes", [1, 2, 8])
def test_nodes_read_all_shards_between_them_and_few_twice(nodes: int) -> None:
    config, _ = load(PretrainConfig, OCT)
    data = assumed_data(182_980, 5e4, "")
    reads = plan_run(config, data, Cluster(nodes, 8, DEVICES[0]), None, 168).node_reads
    assert data.bytes <= nodes * reads.epoch_bytes < 2.5 * data.bytes
    assert reads.copies == pytest.approx({1: 1.0, 2: 1.1, 8: 1.8}[nodes], abs=0.15)


@pytest.mark.parametrize(("nodes", "gigabytes", "requests"), [(4, 3.12, 439), (16, 1.63, 230)])
def test_a_short_epoch_is_counted_whole_as_the_benchmark_counts_it(
    nodes: int, gigabytes: float, requests: int
) -> None:
    """The table of docs/stream.md, by `make bench-shuffle`, and the plan say the same."""
    config, _ = load(PretrainConfig, OCT)
    data = assumed_data(182_980, 5e4, "")
    reads = plan_run(config, data, Cluster(nodes, 8, DEVICES[0]), None, 168).node_reads
    assert (round(reads.epoch_bytes / 1e9, 2), round(reads.epoch_requests)) == (gigabytes, requests)


def stored_by_lookahead(
    plan: BatchPlan, sizes: list[int], nodes: int, ranks_per_node: int, steps: range
) -> float:
    """The most bytes that a run's own lookahead keeps on any node, asked at every step."""
    layout = make_batch_layout(plan.global_batch, nodes * ranks_per_node, plan.global_batch)
    stored = []
    for node in range(nodes):
        slots = rank_share(layout, node * ranks_per_node, ranks_per_node)
        lookahead = Lookahead(plan, slots, slots, stop_step=10**6)
        stored += [sum(sizes[shard] for shard in lookahead.needed_shards(step).node) for step in steps]
    return max(stored)


@pytest.mark.parametrize(
    ("nodes", "batch", "window", "shards"),
    [
        (1, 64, 4, 22),  # 31 steps a window
        (3, 64, 4, 22),
        (4, 60, 2, 22),
        (1, 512, 2, 22),
        (2, 512, 1, 22),  # about a window a step
        (2, 1300, 1, 60),  # two windows a step, or more
    ],
)
def test_the_least_cache_is_what_the_fullest_node_keeps(
    nodes: int, batch: int, window: int, shards: int
) -> None:
    """Shards of 300 to 700 samples, whose sizes differ."""
    counts = tuple(300 + 100 * (n % 5) for n in range(shards))
    sizes = [1000 * count + n for n, count in enumerate(counts)]
    plan = BatchPlan(counts, seed=3, global_batch=batch, window=window)
    epoch = sum(counts) // batch
    assert node_reads(plan, sizes, nodes, 2).stored_bytes == stored_by_lookahead(
        plan, sizes, nodes, 2, range(epoch + 1)
    )


@pytest.mark.parametrize("nodes", [1, 4])
def test_of_a_long_epoch_the_first_windows_are_counted_with_the_step_between_two(nodes: int) -> None:
    """100 shards of 480 samples in windows of 10: 300 steps of 16 samples each, so every step is counted."""
    counts, sizes = (480,) * 100, [1] * 100
    plan = BatchPlan(counts, seed=0, global_batch=16, window=10)
    assert node_reads(plan, sizes, nodes, 2).stored_bytes == stored_by_lookahead(
        plan, sizes, nodes, 2, range(301)
    )


def test_four_nodes_of_the_example_keep_at_most_what_the_benchmark_says() -> None:
    """`make bench-shuffle`: at most 1.15 GB, which is more than the mean of the nodes."""
    config, _ = load(PretrainConfig, OCT)
    data = assumed_data(182_980, 5e4, "")
    reads = plan_run(config, data, Cluster(4, 8, DEVICES[0]), None, 168).node_reads
    assert round(reads.stored_bytes / 1e9, 2) == 1.15
