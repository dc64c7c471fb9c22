"""Joins the ranks of a run (NCCL on GPUs, gloo on CPUs), and leaves them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from retfound_dist.config.schema import DeviceSetting, PretrainConfig
from retfound_dist.errors import DeviceError, RetfoundError
from retfound_dist.estimate.loader_processes import choose_workers
from retfound_dist.model.devices import choose_device
from retfound_dist.runtime.host_cores import allowed_cores, cores_per_rank
from retfound_dist.runtime.world import World, launched_by_srun, whole_number
from retfound_dist.train.ranks.collectives import RankGroup

_SHORTEST = timedelta(minutes=30)
"""Until the first step a collective may wait for a slow store to give a checkpoint."""
_MARGIN = timedelta(minutes=5)
_UNLIMITED = timedelta(days=365)


def collective_timeout(hang_minutes: float, patience_s: float) -> timedelta:
    """How long a collective may wait.

    Longer than a step (`train.hang_minutes`, 0: no limit) and a save (`checkpoint.patience_s`) together: the
    watchdog must end a run that hangs first, because it prints stacks, and a collective does not.
    """
    if not hang_minutes:
        return _UNLIMITED
    return max(_SHORTEST, timedelta(minutes=hang_minutes, seconds=patience_s) + _MARGIN)


def join_ranks(
    world: World, threads: int, setting: DeviceSetting = "auto", timeout: timedelta = _SHORTEST
) -> RankGroup:
    """Join the other ranks. DeviceError, before that, where this rank cannot compute as it should.

    `threads`: of this process on a CPU; 0: its share of the cores. `setting`: `train.device`.
    `timeout`: of a collective.
    """
    device = choose_device(setting, world, os.environ)
    if launched_by_srun(os.environ):
        _set_address_from_slurm()
    _set_if_empty("MASTER_ADDR", "127.0.0.1")
    _set_if_empty("MASTER_PORT", "0" if world.size == 1 else "29500")
    _set_if_empty("RANK", str(world.rank))
    _set_if_empty("WORLD_SIZE", str(world.size))
    _set_if_empty("LOCAL_RANK", str(world.local_rank))
    backend, options = "gloo", dict[str, Any]()
    if device.type == "cuda":
        backend = "nccl"
        torch.cuda.set_device(device)
        # Ranks then connect here, not in the first step. One rank connects to nobody.
        options = {"device_id": device} if world.size > 1 else {}
    # A start that failed in this process may have left its group, for leaving would wait for a collective.
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=timeout, **options)
    # A second group, on the hosts: what ranks exchange while a step runs must not queue behind it on the
    # device.
    hosts = dist.new_group(backend="gloo", timeout=timeout) if world.size > 1 else None
    own = allowed_cores()
    cores = cores_per_rank(own, RankGroup(world, device, hosts).gather(own))
    torch.set_num_threads(threads or max(1, int(cores)))
    return RankGroup(world, device, hosts, cores)


def with_worker_count(config: PretrainConfig, group: RankGroup) -> PretrainConfig:
    """The config with a number in place of `data.workers="auto"`."""
    if config.data.workers != "auto":
        return config
    workers = choose_workers(config.model, group.cores, on_gpu=group.device.type == "cuda")
    return replace(config, data=replace(config.data, workers=workers))


def prints_error(error: RetfoundError, world: World) -> bool:
    """Whether this rank prints an error that occurs before the ranks have joined.

    All ranks have the same one then, because each reads the same config, manifest and run, so rank 0 speaks.
    Only GPUs differ from host to host: there the first rank of each host speaks.
    """
    return world.is_main or (isinstance(error, DeviceError) and world.local_rank == 0)


def set_group_timeouts(timeout: timedelta) -> None:
    """Give all groups of this process the timeout, also those that DeepSpeed has made.

    DeepSpeed (0.19.8) makes its groups without a timeout, and PyTorch then takes 10 minutes for NCCL.
    """
    module = dist.distributed_c10d
    # The public name is that of torch 2.15.
    set_timeout = getattr(module, "set_timeout", None) or module._set_pg_timeout
    for group in module._world.pg_map:
        set_timeout(timeout, group)


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
