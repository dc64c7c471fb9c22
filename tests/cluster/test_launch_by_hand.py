"""launch/local.sh, launch/torchrun.sh on two hosts, and what launch/demo.sh refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests import ROOT
from tests.cluster import real_parts
from tests.cluster.real_parts import notes, wait_until
from tests.cluster.real_slurm import Slurm

VENV = {"VENV": str(Path(sys.executable).parents[1])}


def test_local_starts_as_many_ranks_as_asked_for(clone: Path) -> None:
    real_parts.run("launch/local.sh", "a.toml", "x=1 2", env=VENV | {"RANKS_PER_NODE": "2"}, cwd=clone)
    assert notes(clone) == {f"rank{i}": [f"start {i} of 2: pretrain a.toml x=1 2"] for i in range(2)}


def test_torchrun_waits_for_a_save_as_long_as_the_config_says(clone: Path) -> None:
    real_parts.run("launch/local.sh", "a.toml", "grace", env=VENV | {"RANKS_PER_NODE": "2"}, cwd=clone)
    assert [lines[0] for lines in notes(clone).values()] == ["torchrun gives 60 s"] * 2


def test_scripts_without_a_config_say_how_to_call_them(clone: Path) -> None:
    for script in ("launch/local.sh", "launch/torchrun.sh"):
        done = real_parts.run(script, env=VENV, cwd=clone, check=False)
        assert done.returncode == 2
        assert script in done.stdout


def test_two_hosts_meet_at_a_fixed_master(slurm: Slurm, clone: Path) -> None:
    hosts = [
        slurm.node(
            i + 1,
            "launch/torchrun.sh",
            "a.toml",
            cwd=clone,
            env={"NNODES": "2", "NODE_RANK": str(i), "MASTER_ADDR": "node1", "RANKS_PER_NODE": "2"},
        )
        for i in range(2)
    ]
    for host in hosts:
        said, _ = host.communicate(timeout=120)
        assert host.returncode == 0, said
    assert notes(clone) == {f"rank{i}": [f"start {i} of 4: pretrain a.toml"] for i in range(4)}


def test_the_named_interface_is_used_where_names_resolve_to_loopback(slurm: Slurm, clone: Path) -> None:
    common = {"NNODES": "2:2", "RDZV_ENDPOINT": "10.99.0.1:29401", "RANKS_PER_NODE": "1", "IFACE": "eth0"}
    unnamed = "umount /etc/hosts; exec launch/torchrun.sh a.toml"
    hosts = [
        slurm.node(i + 1, "bash", "-c", unnamed, cwd=clone, env=common | {"RDZV_HOST": first})
        for i, first in enumerate(("true", "false"))
    ]
    for host in hosts:
        said, _ = host.communicate(timeout=120)
        assert host.returncode == 0, said
    assert notes(clone) == {f"rank{i}": [f"start {i} of 2: pretrain a.toml"] for i in range(2)}


def test_when_a_host_is_lost_the_other_goes_on_alone(slurm: Slurm, clone: Path) -> None:
    common = {"NNODES": "1:2", "RDZV_ENDPOINT": "node1:29402", "RANKS_PER_NODE": "1"}
    stays, lost = (slurm.node(i, "launch/torchrun.sh", "linger", cwd=clone, env=common) for i in (1, 2))
    try:
        together = ["start 0 of 2: pretrain linger", "start 1 of 2: pretrain linger"]
        wait_until(lambda: [lines[-1] for lines in notes(clone).values()] == together, 90, "both hosts run")
        end(lost)
        for rank in psutil.Process(stays.pid).children():
            rank.kill()  # as the trainer leaves when its peer's connection breaks
        alone = "start 0 of 1: pretrain linger"
        wait_until(lambda: notes(clone)["rank0"][-1] == alone, 90, "one host goes on")
        (clone / "release").touch()
        assert stays.wait(60) == 0
    finally:
        end(lost)
        end(stays)


def end(host: subprocess.Popen[str]) -> None:
    """kill -9 for torchrun and its ranks, as when the host loses its power."""
    if host.poll() is None:
        for process in [*psutil.Process(host.pid).children(recursive=True), host]:
            process.kill()
        host.wait(10)


def test_the_demo_does_not_touch_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    precious = tmp_path / "runs" / "demo" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    env = VENV | {"RUNS": str(tmp_path / "runs")}
    done = real_parts.run(ROOT / "launch" / "demo.sh", env=env, check=False)
    assert done.returncode == 2
    assert "is not an earlier demo" in done.stdout
    assert precious.exists()


def test_the_demo_refuses_images_that_are_not_there(tmp_path: Path) -> None:
    env = VENV | {"RUNS": str(tmp_path / "runs"), "IMAGES": str(tmp_path / "nothing")}
    done = real_parts.run(ROOT / "launch" / "demo.sh", env=env, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/nothing is not a folder" in done.stdout
    assert not (tmp_path / "runs").exists()
