"""What nodes read of a shard set in an epoch."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.cluster import DEVICES, Cluster
from retfound_dist.plan.data_facts import assumed_data
from retfound_dist.plan.run_plan import plan_run
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
