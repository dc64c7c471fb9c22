"""The rank of this process and the number of ranks, read once from the launcher's environment.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; `srun` without torchrun sets SLURM_PROCID,
SLURM_NTASKS and SLURM_LOCALID. Alone, a process is rank 0 of 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from retfound_dist.errors import ConfigError

OWNER_VARIABLE = "RETFOUND_OWNER"
"""Environment variable with the ranks' common name, where they have no common parent (`retfound doctor`)."""
LAUNCHER_ENDED = -1
"""Stands for the process number of a launcher that ended before its rank began."""


@dataclass(frozen=True)
class World:
    """The place of a process: `rank` of `size`, `local_rank` on its host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Ranks on this host."""
    owner: str = field(default="", compare=False)
    """A name that the ranks of one run on one host have in common."""
    launcher: int = field(default=0, compare=False)
    """Process number of the torchrun that this process must not outlive; 0: there is none."""

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0


def read_world(env: Mapping[str, str]) -> World:
    """The place of this process, from torchrun's or Slurm's variables; an empty one counts as not set."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if launched_by_srun(env):
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    rank, size, local = (
        whole_number(env, key, default) for key, default in zip(names, (0, 1, 0), strict=True)
    )
    if not 0 <= rank < size:
        raise ConfigError(
            f"{names[0]}={rank} is not a rank of {names[1]}={size}: start with torchrun or srun, "
            f"or unset {names[0]} for one process"
        )
    if local < 0:
        raise ConfigError(f"{names[2]}={local} is below 0: start with torchrun or srun, or unset it")
    parent = os.getppid()
    # The ranks of one run on one host have one parent: torchrun, or Slurm's step.
    owner = env.get(OWNER_VARIABLE) or f"{pid_namespace()}-{parent if size > 1 else os.getpid()}"
    return World(rank, size, local, _local_size(env, size), owner, _launcher(env, parent))


def whole_number(env: Mapping[str, str], key: str, default: int) -> int:
    """A variable's number; the default where it is not set or empty, ConfigError where it is no number."""
    text = env.get(key, "").strip()
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"the environment variable {key}={text!r} is not a whole number: a launcher sets it, unset it "
            "where there is none"
        ) from None


def pid_namespace() -> int:
    """Identifies the namespace of process numbers: containers may share a host's name and its /tmp."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _launcher(env: Mapping[str, str], parent: int) -> int:
    """torchrun's process number; `GONE` when process 1 has taken its place."""
    if "TORCHELASTIC_RUN_ID" not in env:
        return 0
    if parent == 1:  # in a container that may be torchrun itself
        with suppress(OSError), open("/proc/1/cmdline", "rb") as file:
            return 1 if b"torch" in file.read() else LAUNCHER_ENDED
    return parent


def _local_size(env: Mapping[str, str], size: int) -> int:
    """Ranks on this host; torchrun says it, Slurm says it as "4" or, per node, "4(x2),3"."""
    launcher_count = whole_number(env, "LOCAL_WORLD_SIZE", 0)
    if launcher_count > 0:
        return launcher_count
    tasks = re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return int(tasks[0]) if tasks and env.get("SLURM_STEP_ID") else size


def launched_by_srun(env: Mapping[str, str]) -> bool:
    """Whether ranks come from `srun` itself, so that RANK and MASTER_ADDR are still to be set."""
    # A batch script has SLURM_NTASKS too, without being one of the tasks: only a step of srun has a number.
    if env.get("RANK", "").strip() or not env.get("SLURM_STEP_ID"):
        return False
    return whole_number(env, "SLURM_NTASKS", 1) > 1
