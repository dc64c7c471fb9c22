"""Chooses where a process computes, and notices GPUs that were given to it but cannot be used.

Without the second a run would train on the CPU to its end, at a hundredth of the speed, and report success.
"""

from __future__ import annotations

import glob
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from retfound_dist.config.schema import DeviceSetting
from retfound_dist.errors import DeviceError
from retfound_dist.runtime.world import World

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NONE_VISIBLE = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all GPUs; the last one is Slurm's."""
_GIVEN = (VISIBLE, "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""Variables that name the GPUs of a process, a Slurm step or a job."""
_DRIVER_VERSION = re.compile(r"Kernel Module.*?\s(\d+(?:\.\d+)+)")


def choose_device(
    setting: DeviceSetting, world: World, env: Mapping[str, str], root: str = "/"
) -> torch.device:
    """The device of a rank. `root`: where /dev and /proc are.

    `auto`: a GPU, or the CPU of a machine without GPUs. `cpu`: all GPUs are hidden from this process and its
    children, before anything has used one. DeviceError where GPUs are there or asked for, and
    torch cannot use them, and where a host has more ranks than GPUs.
    """
    if setting == "cpu":
        # The only way that reaches all of torch and DeepSpeed: both look for GPUs in many places.
        os.environ[VISIBLE] = ""
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", gpu_index(world, torch.cuda.device_count()))
    signs = signs_of_gpus(env, root)
    if setting == "cuda" or signs:
        raise DeviceError(_unusable_message(signs, root))
    return torch.device("cpu")


def why_gpus_are_not_used(env: Mapping[str, str], root: str = "/") -> str:
    """A sentence where GPUs are there and torch cannot use them; else empty."""
    signs = signs_of_gpus(env, root)
    return _unusable_message(signs, root) if signs and not torch.cuda.is_available() else ""


def device_name(device: torch.device) -> str:
    """For people: the GPU's name, or `CPU`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def wait_for_device(device: torch.device) -> None:
    """Wait until a GPU has done all that was asked of it; a CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gpu_index(world: World, visible: int) -> int:
    """Which of the GPUs that a rank sees is its own; DeviceError where there are too few."""
    if world.local_rank < visible:
        return world.local_rank
    # `srun --gpus-per-task=1` shows each rank its own GPU alone, as number 0. The ranks of a torchrun share
    # what they see.
    if visible == 1 and not world.launcher:
        return 0
    raise DeviceError(
        f"{socket.gethostname()}: rank {world.rank} is number {world.local_rank + 1} of its host, but "
        f"{visible} of its GPUs {'is' if visible == 1 else 'are'} visible: start as many ranks as GPUs on "
        f"each host (RANKS_PER_NODE={visible}), or change {VISIBLE}"
    )


def signs_of_gpus(env: Mapping[str, str], root: str = "/") -> list[str]:
    """What says that this process has NVIDIA GPUs; empty where nothing does, or where they are hidden."""
    if env.get(VISIBLE, "unset").strip() in _NONE_VISIBLE:
        return []
    signs = [f"{name}={env[name]}" for name in _GIVEN if env.get(name, "").strip()]
    return signs + sorted(f"/{path}" for path in glob.glob("dev/nvidia[0-9]*", root_dir=root))


def driver_version(root: str = "/") -> str:
    """The version of NVIDIA's driver, such as `550.54.15`; empty where it is not known."""
    with suppress(OSError):
        match = _DRIVER_VERSION.search(Path(root, "proc/driver/nvidia/version").read_text())
        return match[1] if match else ""
    return ""


def _unusable_message(signs: list[str], root: str) -> str:
    reason_for_gpu = f"GPUs are there ({', '.join(signs[:3])})" if signs else "train.device=cuda"
    driver = driver_version(root) or "none found"
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return (
        f"{socket.gethostname()}: {reason_for_gpu}, but torch {torch.__version__} ({build}; NVIDIA driver: "
        f"{driver}) cannot use them: {_reason()}. Install a driver and a torch that fit, or compute on the "
        f"CPU (train.device=cpu, or {VISIBLE}= for any command)"
    )


def _reason() -> str:
    """What torch says when it is asked to use a GPU, as one sentence without its full stop."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".") or type(error).__name__
    return "it sees none"
