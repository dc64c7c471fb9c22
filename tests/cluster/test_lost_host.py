"""Hosts that are lost and come back, under launch/torchrun.sh and the real trainer, on S3."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats import checkpoint_folder, run_folder
from tests.cluster import real_hosts
from tests.cluster.real_hosts import Hosts
from tests.cluster.real_parts import wait_until
from tests.cluster.real_s3 import S3
from tests.train.launching import SMALL, expected_digests, metrics

STEPS, EVERY = 90, 5
CONFIG = "configs/demo/pretrain.toml"
OURS = [*SMALL, "train.micro_batch=8", "train.global_batch=40", f"checkpoint.every_steps={EVERY}"]

ALONE = {"NNODES": "1", "NODE_RANK": "0", "MASTER_ADDR": "node1"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with real_hosts.hosts(tmp_path_factory.mktemp("lost") / "hosts") as found:
        yield found


@pytest.fixture(scope="module")
def s3(hosts: Hosts) -> Iterator[S3]:
    """A server that all hosts reach, with a shard set."""
    with hosts.s3() as server:
        pack = [
            "-m",
            "retfound_dist",
            "pack",
            "configs/demo/pack.toml",
            "phantom.patients=20",
            "phantom.height=64",
        ]
        small = ["phantom.width=64", "out.shard_mb=0.02", "out.workers=1", f"out.url={server.url}/set"]
        hosts.between(sys.executable, *pack, *small, env=server.environment())
        yield server


@pytest.fixture(autouse=True)
def quiet(hosts: Hosts) -> Iterator[None]:
    """A test leaves no process on the hosts to the next."""
    yield
    for index in range(hosts.count):
        hosts.kill(index + 1)


def start(hosts: Hosts, index: int, s3: S3, run: str, *overrides: str, **how: str) -> subprocess.Popen[bytes]:
    """launch/torchrun.sh on a host: becomes torchrun, the agent there."""
    urls = [f"run.url={s3.url}/{run}", f"data.shards={s3.url}/set"]
    return hosts.start(
        index, "launch/torchrun.sh", CONFIG, *urls, *OURS, *overrides, env=s3.environment() | how
    )


def folder(hosts: Hosts, s3: S3, name: str) -> Path:
    """Where the server keeps what stands at a URL in the bucket."""
    return hosts.folder / "data" / s3.bucket / name


def rows(run: Path) -> list[dict[str, Any]]:
    return run_folder.read_metrics(str(run))


def ranks(hosts: Hosts, index: int) -> list[list[str]]:
    """The trainers on a host, without their torchrun."""
    lines = [process.cmdline() for process in hosts.running(index)]
    return [line for line in lines if "pretrain" in line and not any(w.endswith("/torchrun") for w in line)]


def test_a_run_goes_on_without_a_lost_host_and_with_it_when_it_is_back(hosts: Hosts, s3: S3) -> None:
    how = {"NNODES": "2:3", "RDZV_ENDPOINT": "node1:29400"}
    run = folder(hosts, s3, "run")

    def at(size: int, after: int = 0) -> bool:
        return any(row["world_size"] == size and row["step"] > after for row in rows(run))

    def go(index: int) -> subprocess.Popen[bytes]:
        return start(hosts, index, s3, "run", f"train.steps={STEPS}", **how)

    try:
        agents = [go(index) for index in (1, 2, 3)]
        wait_until(lambda: at(3, after=EVERY), 90, "three hosts train and have saved")
        hosts.kill(3)
        wait_until(lambda: at(2), 90, "the others go on")
        lost_at = max(row["step"] for row in rows(run) if row["world_size"] == 2)
        agents[2] = go(3)
        wait_until(lambda: at(3, after=lost_at), 60, "they go on at three")
        wait_until(
            lambda: checkpoint_folder.list_steps(str(run))[-1:] == [STEPS], 90, "the run ends", every=0.5
        )
        wait_until(lambda: all(agent.poll() == 0 for agent in agents), 30, "every agent leaves")
    except BaseException:
        print(hosts.logs())
        raise
    wait_until(hosts.idle, 10, "nothing is left on any host")
    config, _ = load(
        PretrainConfig, CONFIG, [*OURS, f"run.url={run}", f"data.shards={folder(hosts, s3, 'set')}"]
    )
    expected = expected_digests(config, str(folder(hosts, s3, "set")), STEPS)
    written = metrics(run)
    assert {row["step"] for row in written} == set(range(1, STEPS + 1))
    assert [row["batch_digest"] for row in written] == [expected[row["step"] - 1] for row in written]
    assert [size for size, _ in groupby(row["world_size"] for row in written)] == [3, 2, 3]
    assert written[-1]["step"] == STEPS


def test_a_run_goes_on_without_a_host_whose_link_is_cut(hosts: Hosts, s3: S3) -> None:
    """Nothing tells the others: no connection is closed, answers only fail to come."""
    how = {"NNODES": "2:3", "RDZV_ENDPOINT": "node1:29500"}
    run = folder(hosts, s3, "cut")
    settings = ["train.steps=100000", "train.hang_minutes=0.2", "checkpoint.patience_s=20"]
    for index in (1, 2, 3):
        start(hosts, index, s3, "cut", *settings, **how)
    try:
        wait_until(
            lambda: bool(checkpoint_folder.list_steps(str(run))), 120, "three hosts train and have saved"
        )
        hosts.cut(3)
        wait_until(lambda: any(row["world_size"] == 2 for row in rows(run)), 240, "the others go on")
        wait_until(lambda: not ranks(hosts, 3), 60, "its rank has left")
    except BaseException:
        print(hosts.logs())
        raise
    finally:
        hosts.cut(3, mended=True)
    assert "no step for" in (hosts.folder / "node3.log").read_text()
    # The host that is cut off cannot write to the run; the others say what they waited in.
    assert "could not be written" in (hosts.folder / "node3.log").read_text()
    traces = list((run / "hangs").iterdir())
    assert {trace.name.rpartition("_")[2] for trace in traces} == {"000.json", "001.json"}
    assert all(row["world_size"] in (2, 3) for row in rows(run))


@pytest.mark.parametrize("workers", [0, 1])
def test_no_rank_outlives_its_agent(hosts: Hosts, s3: S3, workers: int) -> None:
    agent = start(hosts, 1, s3, f"orphan{workers}", "train.steps=100000", f"data.workers={workers}", **ALONE)
    wait_until(lambda: bool(rows(folder(hosts, s3, f"orphan{workers}"))), 60, "a step is logged")
    assert len(hosts.running(1)) > 1
    agent.kill()
    agent.wait()
    wait_until(lambda: not hosts.running(1), 20, "the rank ends with its agent")


def test_no_rank_outlives_an_agent_that_is_killed_while_it_starts(hosts: Hosts, s3: S3) -> None:
    agent = start(hosts, 1, s3, "newborn", "train.steps=100000", **ALONE)
    wait_until(lambda: len(hosts.running(1)) > 1, 60, "the rank is started", every=0.05)
    agent.kill()
    agent.wait()
    wait_until(lambda: not hosts.running(1), 30, "the rank ends without its agent")
