"""Joins the ranks of a run (NCCL on GPUs, gloo on CPUs), and leaves them."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from retfound_dist.runtime.world import World, launched_by_srun, whole_number
from retfound_dist.train.ranks.collectives import RankGroup

TIMEOUT = timedelta(minutes=30)
"""How long a collective may wait. PyTorch's own default for NCCL, 10 minutes, is less than a slow store takes
to give a checkpoint; `train.hang_minutes` ends a run that hangs much earlier."""


def join_ranks(world: World, threads: int) -> RankGroup:
    """Join the other ranks; `threads`: of this process on a CPU, 0 for its share of the cores."""
    if launched_by_srun(os.environ):
        _set_address_from_slurm()
    _set_if_empty("MASTER_ADDR", "127.0.0.1")
    _set_if_empty("MASTER_PORT", "0" if world.size == 1 else "29500")
    _set_if_empty("RANK", str(world.rank))
    _set_if_empty("WORLD_SIZE", str(world.size))
    _set_if_empty("LOCAL_RANK", str(world.local_rank))
    per_node = whole_number(os.environ, "SLURM_NTASKS_PER_NODE", world.size)
    local = max(1, whole_number(os.environ, "LOCAL_WORLD_SIZE", per_node))
    torch.set_num_threads(threads or max(1, (len(os.sched_getaffinity(0)) or 1) // local))
    device, backend, options = torch.device("cpu"), "gloo", dict[str, Any]()
    if torch.cuda.is_available():
        device, backend = torch.device("cuda", world.local_rank), "nccl"
        torch.cuda.set_device(device)
        # Ranks then connect here, not in the first step. One rank connects to nobody.
        options = {"device_id": device} if world.size > 1 else {}
    # A start that failed in this process may have left its group, for leaving would wait for a collective.
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=TIMEOUT, **options)
    # A second group, on the hosts: what ranks exchange while a step runs must not queue behind it on the
    # device.
    hosts = dist.new_group(backend="gloo") if world.size > 1 else None
    return RankGroup(world, device, hosts)


def leave_ranks() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _set_if_empty(name: str, value: str) -> None:
    """Set a variable that torch.distributed reads; `RANK=` counts as not set, as in `world`."""
    if not os.environ.get(name, "").strip():
        os.environ[name] = value


def _set_address_from_slurm() -> None:
    """Where the ranks of a Slurm step meet: its first host, at a port that follows from the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", ""))
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    _set_if_empty("MASTER_ADDR", hosts.stdout.split()[0])
    # The same port on every rank, and rarely the same one for two jobs that share a host.
    _set_if_empty("MASTER_PORT", str(20000 + whole_number(os.environ, "SLURM_JOB_ID", 0) % 20000))
