"""Checks of each host: its GPUs, cores, memory, limits and temporary folder."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from retfound_dist.doctor.check_result import CheckResult, first_fault, measure_on_ranks, values_of
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.estimate import model_shapes
from retfound_dist.io.scratch import temporary_base
from retfound_dist.model.devices import device_name, driver_version
from retfound_dist.runtime.humanize import duration, plural, size
from retfound_dist.train.engine.memory_meter import host_free_bytes

SHARED_MEMORY = "/dev/shm"
OPEN_FILES = 1024
"""Fewest open files of a process: a rank with 12 workers and its sockets to S3 has some hundreds."""
WORKER_BYTES = 100e6
"""Memory of a loader process: 20 MB of its own, and its share of the libraries."""
PROBE_BYTES = 64_000_000
"""Bytes that are written to measure a disk."""
SLOW_SAVE_S = 60.0
"""Writing a checkpoint to the temporary folder should not take longer."""


@dataclass(frozen=True)
class HostFacts:
    """What a rank sees of its host."""

    host: str
    device: str
    driver: str
    cores: float
    """This rank's share of its host's."""
    free_bytes: float
    """Of the host's memory, for all its ranks."""
    open_files: float
    shared_bytes: float
    scratch_folder: str
    scratch_free: float
    scratch_rate: float
    """Bytes per second that one rank writes with fsync; 0 on all ranks of a host but the first."""


def machine_checks(checkup: Checkup) -> Iterator[CheckResult]:
    """`device`, `cores`, `host_memory`, `open_files`, `shared_memory` and `scratch`."""
    measured = measure_on_ranks(checkup.group, lambda: read_host_facts(checkup))
    what_to_do = "run `retfound doctor` on this host alone with --debug"
    if fault := first_fault("host", measured, what_to_do):
        yield fault
    facts = values_of(measured)
    if not facts:
        return
    yield device_check(facts, checkup)
    yield cores_check(facts, checkup.workers)
    yield host_memory_check(facts, host_bytes_needed(checkup))
    yield open_files_check(facts)
    yield shared_memory_check(facts, shared_bytes_needed(checkup))
    yield scratch_check(facts, scratch_bytes_needed(checkup))


def read_host_facts(checkup: Checkup) -> HostFacts:
    """This rank's facts; writes `PROBE_BYTES` to the temporary folder and removes them."""
    group, folder = checkup.group, temporary_base()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HostFacts(
        host=socket.gethostname(),
        device=device_name(group.device),
        driver=driver_version(),
        cores=group.cores,
        free_bytes=host_free_bytes(),
        open_files=float("inf") if soft == resource.RLIM_INFINITY else float(soft),
        shared_bytes=float(shutil.disk_usage(SHARED_MEMORY).free) if os.path.isdir(SHARED_MEMORY) else 0.0,
        scratch_folder=folder,
        scratch_free=float(shutil.disk_usage(folder).free),
        scratch_rate=write_rate(folder) if group.world.local_rank == 0 else 0.0,
    )


def write_rate(folder: str, count: int = PROBE_BYTES) -> float:
    """Bytes per second that reach the disk of a folder."""
    block = os.urandom(1_000_000)  # some file systems store zeros without writing
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        for _ in range(max(1, count // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())  # else the page cache is measured
        return count / max(1e-9, time.perf_counter() - began)


def host_bytes_needed(checkup: Checkup) -> float:
    """Host memory that the ranks of a host need beside what a GPU holds: a save's copies, and the loaders."""
    world, train = checkup.group.world, checkup.config.train
    state = model_shapes.state_bytes(checkup.config.model, train.precision) / world.size
    return world.local_size * (state + checkup.workers * WORKER_BYTES)


def shared_bytes_needed(checkup: Checkup) -> float:
    """Shared memory for the batches that loader processes have ready: two a worker, of 8-bit pixels."""
    config, world = checkup.config, checkup.group.world
    channels = 3 if checkup.manifest.image.get("colour") else 1
    height, width = config.model.size
    share = -(-config.train.global_batch // world.size)
    micro = share if config.train.micro_batch == "auto" else min(share, config.train.micro_batch)
    return world.local_size * 2.0 * checkup.workers * micro * channels * height * width


def scratch_bytes_needed(checkup: Checkup) -> float:
    """Temporary files of a save on one host: its ranks' parts of the state and of the weights."""
    config, world = checkup.config, checkup.group.world
    state = model_shapes.state_bytes(config.model, config.train.precision)
    return (state + 4 * model_shapes.parameter_count(config.model)) * world.local_size / world.size


def device_check(facts: list[HostFacts], checkup: Checkup) -> CheckResult:
    """What the ranks compute on: the same on all, and a GPU unless the CPU is asked for."""
    counts = Counter(fact.device for fact in facts)
    text = ", ".join(f"{count} x {name}" for name, count in counts.items())
    hosts = len({fact.host for fact in facts})
    text += f" on {hosts} host{'s' if hosts > 1 else ''}; torch {torch.__version__}"
    if checkup.on_gpu:
        drivers = sorted({fact.driver for fact in facts if fact.driver})
        text += f" for CUDA {torch.version.cuda}, driver {', '.join(drivers) or 'not known'}"
    if len(counts) > 1:
        what_to_do = "use hosts of one kind: each step waits for the slowest rank"
        return CheckResult("device", "failed", f"different devices: {text}", what_to_do=what_to_do)
    if not checkup.on_gpu and checkup.config.train.device != "cpu":
        what_to_do = "run it on the machines of the run; or set train.device=cpu, if the CPU is meant"
        return CheckResult("device", "warning", f"no GPU: {text}", what_to_do=what_to_do)
    return CheckResult("device", "ok", text)


def cores_check(facts: list[HostFacts], workers: int) -> CheckResult:
    """At least a core for each loader process and each rank."""
    fewest = min(facts, key=lambda fact: fact.cores)
    cores = fewest.cores
    text = f"{cores:.3g} cores a rank ({fewest.host}), {plural(workers, 'loader process')}"
    if cores < workers + 1:
        what_to_do = "ask for more cores (Slurm: --cpus-per-task or --exclusive)"
        if workers > 1:
            what_to_do += f", or set data.workers={max(1, int(cores) - 1)}"
        return CheckResult("cores", "warning", text, cores, "cores a rank", what_to_do)
    return CheckResult("cores", "ok", text, cores, "cores a rank")


def host_memory_check(facts: list[HostFacts], needed: float) -> CheckResult:
    """Room for a save's copies and for the loader processes."""
    least = min(facts, key=lambda fact: fact.free_bytes)
    text = f"{size(least.free_bytes)} available on {least.host}; a save and the loaders need {size(needed)}"
    if least.free_bytes < needed:
        what_to_do = "use hosts with more memory, fewer data.workers, or fewer ranks a host"
        return CheckResult("host_memory", "failed", text, least.free_bytes / 1e9, "GB", what_to_do)
    return CheckResult("host_memory", "ok", text, least.free_bytes / 1e9, "GB")


def open_files_check(facts: list[HostFacts]) -> CheckResult:
    """The limit of open files."""
    fewest = min(facts, key=lambda fact: fact.open_files)
    shown = "no limit" if fewest.open_files == float("inf") else f"{fewest.open_files:,.0f}"
    if fewest.open_files < OPEN_FILES:
        what_to_do = f"raise the limit: ulimit -n {OPEN_FILES}, or LimitNOFILE of Slurm's daemon"
        text = f"{shown} open files a process on {fewest.host}"
        return CheckResult("open_files", "warning", text, fewest.open_files, "files", what_to_do)
    return CheckResult("open_files", "ok", f"{shown} open files a process", fewest.open_files, "files")


def shared_memory_check(facts: list[HostFacts], needed: float) -> CheckResult:
    """Room in /dev/shm for the batches of the loader processes."""
    least = min(facts, key=lambda fact: fact.shared_bytes)
    text = (
        f"{size(least.shared_bytes)} free in {SHARED_MEMORY} of {least.host}; the loaders need {size(needed)}"
    )
    if least.shared_bytes < needed:
        what_to_do = "give the container more (docker run --shm-size), or set fewer data.workers"
        return CheckResult("shared_memory", "failed", text, least.shared_bytes / 1e9, "GB", what_to_do)
    return CheckResult("shared_memory", "ok", text, least.shared_bytes / 1e9, "GB")


def scratch_check(facts: list[HostFacts], needed: float) -> CheckResult:
    """Room and speed of the temporary folder, where the files of a save are written first."""
    least = min(facts, key=lambda fact: fact.scratch_free)
    slowest = min((fact for fact in facts if fact.scratch_rate), key=lambda fact: fact.scratch_rate)
    seconds = needed / slowest.scratch_rate
    text = (
        f"{size(least.scratch_free)} free in {least.scratch_folder} of {least.host}, "
        f"{size(slowest.scratch_rate)}/s; a save writes {size(needed)} in about {duration(seconds)}"
    )
    if least.scratch_free < needed:
        what_to_do = "set TMPDIR to a folder on a local disk with more room"
        return CheckResult("scratch", "failed", text, least.scratch_free / 1e9, "GB", what_to_do)
    if seconds > SLOW_SAVE_S:
        what_to_do = "set TMPDIR to a faster local disk"
        return CheckResult("scratch", "warning", text, slowest.scratch_rate / 1e9, "GB/s", what_to_do)
    return CheckResult("scratch", "ok", text, slowest.scratch_rate / 1e9, "GB/s")
