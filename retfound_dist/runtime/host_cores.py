"""How many of a host's cores each of its ranks may use."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

CPU_LIMIT = "/sys/fs/cgroup/cpu.max"
"""Linux, cgroup v2: `QUOTA PERIOD` in microseconds, or `max PERIOD`."""


@dataclass(frozen=True)
class AllowedCores:
    """The cores on which a process may run."""

    host: str
    cores: frozenset[int]
    limit: float = math.inf
    """Cores' worth of time that the container gives to all its processes together."""


def allowed_cores() -> AllowedCores:
    """Those of this process."""
    return AllowedCores(socket.gethostname(), frozenset(os.sched_getaffinity(0)), _container_limit())


def usable_cores() -> float:
    """Cores that this process may use, alone."""
    own = allowed_cores()
    return cores_per_rank(own, [own])


def cores_per_rank(own: AllowedCores, ranks: Sequence[AllowedCores]) -> float:
    """This rank's share of its host's cores. `ranks`: of all ranks, this one among them.

    srun may give each rank cores of its own, or all ranks the same ones. So the cores of a host are counted
    together, and divided.
    """
    neighbours = [rank for rank in ranks if rank.host == own.host]
    together = len(frozenset().union(*(rank.cores for rank in neighbours)))
    return min(together, min(rank.limit for rank in neighbours)) / len(neighbours)


def _container_limit() -> float:
    """The CPU limit of a container (docker --cpus, Kubernetes limits.cpu), which its list of cores hides."""
    # "max" (no limit) is not a number, so it is ignored.
    with suppress(OSError, ValueError), open(CPU_LIMIT) as file:
        quota, period = map(float, file.read().split())
        return quota / period
    return math.inf
