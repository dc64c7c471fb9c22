"""Measures the memory that a process or its GPU needs, and what is still free."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from contextlib import suppress
from pathlib import Path

import torch

from retfound_dist.train.ranks.collectives import RankGroup


class MemoryMeter:
    """The peak above what was in use at its start: of a GPU's allocator, or of resident memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._before = torch.cuda.memory_allocated(device)
        else:
            release_freed_memory()
            self._before = _process_status("VmRSS")
        self.reset()

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                # Linux: sets VmHWM, the peak, to what is resident now (man proc, clear_refs).
                Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Bytes of the peak since the start or the last reset."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self._before
        return _process_status("VmHWM") - self._before


def release_freed_memory() -> None:
    """Have the C library return freed memory to the system; does nothing without glibc."""
    # glibc keeps freed memory for itself, so resident memory would include what is free already.
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _process_status(field: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is none."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    return 0


def free_bytes(group: RankGroup) -> float:
    """Memory that a rank may use: of its GPU, or its part of this host's."""
    if group.device.type == "cuda":
        return float(torch.cuda.mem_get_info(group.device)[0])
    return host_free_bytes() / group.world.local_size


def host_free_bytes() -> float:
    """Memory of this host that its ranks may use together."""
    free = math.inf
    with suppress(OSError), open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
        free = 1024 * float(lines["MemAvailable"].split()[0])
    # A container or a Slurm job may use less than the host has. "max" (no limit) is not a number, so it is
    # ignored.
    folder = "/sys/fs/cgroup/memory"
    with suppress(OSError, ValueError), open(f"{folder}.max") as limit, open(f"{folder}.current") as used:
        free = min(free, float(limit.read()) - float(used.read()))
    if math.isinf(free):
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    return free
