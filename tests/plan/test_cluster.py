"""Which machines a plan is for."""

import pytest

from retfound_dist.errors import ConfigError
from retfound_dist.plan import cluster as clusters
from retfound_dist.plan.cluster import DEVICES, ClusterFlags, find_cluster, find_device, known_device

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4", "SLURM_GPUS_PER_NODE": "h100:8"}


@pytest.fixture(autouse=True)
def no_gpus_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def test_flags_say_all() -> None:
    found = find_cluster(ClusterFlags(3, 5, 40.0), SLURM)
    assert (found.nodes, found.gpus_per_node, found.ranks) == (3, 5, 15)
    assert found.device.name == "A100-40GB"


def test_the_slurm_allocation_says_what_flags_do_not() -> None:
    found = find_cluster(ClusterFlags(), SLURM)
    assert (found.nodes, found.gpus_per_node, found.device.name) == (4, 8, "H100-80GB")
    assert "Slurm job 7" in found.source
    assert find_cluster(ClusterFlags(nodes=2), SLURM).ranks == 16


@pytest.mark.parametrize(
    ("env", "each"),
    [({"SLURM_GPUS_ON_NODE": "2"}, 2), ({"SLURM_GPUS": "16"}, 4), ({"SLURM_TASKS_PER_NODE": "3(x4)"}, 3)],
)
def test_slurm_says_gpus_in_several_ways(env: dict[str, str], each: int) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4"}
    assert find_cluster(ClusterFlags(), job | env).gpus_per_node == each


def test_nothing_said_is_the_papers_cluster_and_says_so() -> None:
    found = find_cluster(ClusterFlags(), {})
    assert (found.ranks, found.device.name) == (8, "A100-40GB")
    assert "assumed" in found.source


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"), ("h200", "H200-141GB"), ("RTX 4090", "RTX4090-24GB"),
        ("NVIDIA L40S", "L40S-48GB"), ("L4", "L4-24GB"),
    ],
)  # fmt: skip
def test_devices_are_known_by_the_drivers_names(said: str, name: str) -> None:
    assert find_device(said).name == name


def test_a_device_nobody_knows_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="H100-80GB"):
        find_device("abacus")


@pytest.mark.parametrize(("memory", "name"), [(24, "RTX4090-24GB"), (40, "A100-40GB"), (80, "A100-80GB")])
def test_memory_alone_guesses_a_device_and_counts_as_it_is(memory: int, name: str) -> None:
    found = find_cluster(ClusterFlags(1, 1, float(memory)), {})
    assert (found.device.name, found.device.memory_gb) == (name, memory)


def test_the_gpus_of_this_host_are_asked_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    tool = tmp_path / "nvidia-smi"  # type: ignore[operator]
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559'\necho 'NVIDIA H100 80GB HBM3, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_cluster(ClusterFlags(), {})
    assert (found.nodes, found.gpus_per_node, found.device.name) == (1, 2, "H100-80GB")
    assert DEVICES[2] is found.device
    assert clusters._local_cluster() is not None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA L40S", "L40S-48GB"),
        ("NVIDIA GeForce RTX 4090", "RTX4090-24GB"),
        ("Tesla V100-SXM2-16GB", ""),
    ],
)
def test_a_gpu_is_known_by_torch_s_name_of_it(name: str, known: str) -> None:
    device = known_device(name)
    assert (device.name if device else "") == known
