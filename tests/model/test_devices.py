"""GPUs that were given and cannot be used end a run before it begins, and each rank takes its own GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retfound_dist.errors import DeviceError
from retfound_dist.model.devices import (
    choose_device,
    driver_version,
    gpu_index,
    signs_of_gpus,
    why_gpus_are_not_used,
)
from retfound_dist.runtime.world import World
from tests import ROOT
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU that torch can use")


def machine_with_gpus(folder: Path, driver: str = "535.54.03") -> str:
    """A file system with what NVIDIA's driver puts there."""
    (folder / "dev").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (folder / "dev" / name).touch()
    version = folder / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Release Build\nGCC version:\n"
    )
    return str(folder)


@pytest.mark.parametrize(
    ("env", "signs"),
    [
        ({}, ["/dev/nvidia0", "/dev/nvidia1"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["CUDA_VISIBLE_DEVICES=1", "/dev/nvidia0", "/dev/nvidia1"]),
        ({"SLURM_JOB_GPUS": "0,1"}, ["SLURM_JOB_GPUS=0,1", "/dev/nvidia0", "/dev/nvidia1"]),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_JOB_GPUS": "0"}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
    ],
)
def test_gpus_are_noticed_unless_they_are_hidden(
    env: dict[str, str], signs: list[str], tmp_path: Path
) -> None:
    assert signs_of_gpus(env, machine_with_gpus(tmp_path)) == signs


def test_a_machine_without_gpus_has_no_signs_and_no_driver(tmp_path: Path) -> None:
    assert signs_of_gpus({"SLURM_JOB_GPUS": ""}, str(tmp_path)) == []
    assert driver_version(str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023",
            "535.54.03",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs@x)",
            "570.86.15",
        ),
        ("something else", ""),
    ],
)
def test_the_driver_s_version_is_read_from_its_own_words(line: str, version: str, tmp_path: Path) -> None:
    machine_with_gpus(tmp_path)
    (tmp_path / "proc/driver/nvidia/version").write_text(f"{line}\n")
    assert driver_version(str(tmp_path)) == version


@NO_GPU
def test_unusable_gpus_are_refused_with_driver_and_wheel(tmp_path: Path) -> None:
    root = machine_with_gpus(tmp_path)
    for setting in ("auto", "cuda"):
        with pytest.raises(DeviceError) as caught:
            choose_device(setting, World(), {}, root)  # type: ignore[arg-type]
        for part in ("/dev/nvidia0", "driver: 535.54.03", f"torch {torch.__version__}", "train.device=cpu"):
            assert part in str(caught.value)
    assert choose_device("auto", World(), {"CUDA_VISIBLE_DEVICES": ""}, root).type == "cpu"
    with pytest.raises(DeviceError, match=r"train.device=cuda, but torch .* driver: none found"):
        choose_device("cuda", World(), {}, str(tmp_path / "nothing"))


@NO_GPU
def test_an_evaluation_on_the_cpu_says_why_its_gpus_are_not_used(tmp_path: Path) -> None:
    root = machine_with_gpus(tmp_path)
    assert "driver: 535.54.03" in why_gpus_are_not_used({}, root)
    assert why_gpus_are_not_used({"CUDA_VISIBLE_DEVICES": ""}, root) == ""
    assert why_gpus_are_not_used({}, str(tmp_path / "nothing")) == ""


def test_the_cpu_is_taken_where_it_is_asked_for_and_gpus_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert choose_device("cpu", World(), os.environ).type == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("world", "visible", "index"),
    [
        (World(rank=5, size=8, local_rank=1, local_size=4, launcher=17), 4, 1),
        (World(rank=5, size=8, local_rank=5, local_size=8), 8, 5),
        # srun --gpus-per-task=1
        (World(rank=5, size=8, local_rank=5, local_size=8), 1, 0),
        (World(), 1, 0),
    ],
)
def test_each_rank_has_its_own_gpu(world: World, visible: int, index: int) -> None:
    assert gpu_index(world, visible) == index


@pytest.mark.parametrize(("visible", "launcher"), [(1, 17), (2, 17), (2, 0), (0, 0)])
def test_more_ranks_than_gpus_are_refused(visible: int, launcher: int) -> None:
    world = World(rank=5, size=8, local_rank=3, local_size=4, launcher=launcher)
    with pytest.raises(DeviceError, match=f"RANKS_PER_NODE={visible}"):
        gpu_index(world, visible)


@NO_GPU
@pytest.mark.slow
def test_a_run_whose_gpus_cannot_be_used_does_not_begin(tmp_path: Path) -> None:
    """The first rank of the second host says so: rank 0 may not know."""
    command = [sys.executable, "-m", "retfound_dist", "pretrain", "configs/demo/pretrain.toml"]
    run = tmp_path / "run"
    done = subprocess.run(
        [*command, f"run.url={run}", f"data.shards={make_set(tmp_path).url}", *SMALL],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "0", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        capture_output=True, text=True, cwd=ROOT, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("retfound:")]
    assert "CUDA_VISIBLE_DEVICES=0" in line
    assert not run.exists()
