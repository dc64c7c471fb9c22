"""Checks of what joins the ranks, and of how fast each of them computes and copies."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from retfound_dist.doctor.check_result import CheckResult, first_fault, measure_on_ranks, values_of
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.model.cpu_bf16 import has_bf16_instructions
from retfound_dist.model.devices import wait_for_device
from retfound_dist.model.flops import matrix_rate
from retfound_dist.plan.cluster import NODE_LINK_BYTES_PER_S, known_device
from retfound_dist.runtime.humanize import flops, size

LINK_ELEMENTS = 16_000_000
"""Numbers in fp32 of a reduction that is measured: 64 MB, as a bucket of gradients."""
REPETITIONS = 5
SLOW_RANK = 0.85
"""A rank with less than this share of the median rate slows all others down."""
LOW_SHARE_OF_LINK = 0.25
"""Less than this share of the network's assumed rate is called slow."""
LOW_SHARE_OF_DATASHEET = 0.5
"""A large product of matrices reaches 60 to 80 % of the datasheet's rate on a healthy GPU."""
COPY_BYTES = 256_000_000
THROTTLED = ("hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
"""Reasons of nvidia-smi that mean heat or power, and not that the GPU is idle."""


def link_check(checkup: Checkup) -> CheckResult:
    """`links`: the rate of a reduction over all ranks, as it is used for gradients."""
    group, world = checkup.group, checkup.group.world
    if world.size == 1:
        return CheckResult("links", "skipped", "one rank sends nothing: start it on all ranks of the run")
    values = torch.ones(LINK_ELEMENTS, device=group.device)
    seconds = []
    for _ in range(REPETITIONS + 1):  # the first one connects
        group.broadcast(None)  # all begin together
        began = time.perf_counter()
        dist.all_reduce(values)
        wait_for_device(group.device)
        seconds.append(time.perf_counter() - began)
        values.fill_(1)
    # A ring sends every byte 2 (n - 1) / n times.
    sent = 2 * (world.size - 1) / world.size * 4 * LINK_ELEMENTS
    rate = sent / max(group.gather(statistics.median(seconds[1:])))
    backend = "NCCL" if checkup.on_gpu else "gloo"
    hosts = checkup.hosts
    text = f"{size(rate)}/s a rank over {world.size} ranks on {hosts} host{'s' * (hosts > 1)} ({backend}"
    text += f"; {_interfaces()})"
    if checkup.on_gpu and hosts > 1 and rate * world.local_size < LOW_SHARE_OF_LINK * NODE_LINK_BYTES_PER_S:
        what_to_do = (
            "look at the interface that NCCL chose (NCCL_DEBUG=INFO), and set IFACE or NCCL_IB_HCA "
            "(launch/environment.sh)"
        )
        return CheckResult("links", "warning", text, rate / 1e9, "GB/s", what_to_do)
    return CheckResult("links", "ok", text, rate / 1e9, "GB/s")


def _interfaces() -> str:
    """The network interfaces that the ranks may use, with their speed where the kernel knows it."""
    chosen = os.environ.get("NCCL_SOCKET_IFNAME") or os.environ.get("GLOO_SOCKET_IFNAME")
    shown = []
    for folder in sorted(Path("/sys/class/net").glob("*")):
        name = folder.name
        if name == "lo" or (chosen and name != chosen):
            continue
        speed = 0
        with suppress(OSError, ValueError):
            speed = int((folder / "speed").read_text())
        shown.append(f"{name} {speed / 1000:g} Gbit/s" if speed > 0 else name)
    return "interfaces: " + (", ".join(shown[:4]) or "only loopback")


def rate_checks(checkup: Checkup) -> Iterator[CheckResult]:
    """`matrix_rate`, `host_to_device` and `clocks`."""
    yield _matrix_rate_check(checkup)
    if not checkup.on_gpu:
        for name in ("host_to_device", "clocks"):
            yield CheckResult(name, "skipped", "there is no GPU")
        return
    yield _copy_check(checkup)
    yield _clock_check(checkup)


def working_type(checkup: Checkup) -> torch.dtype:
    """The type that really multiplies: a CPU without bf16 instructions multiplies in fp32."""
    if checkup.config.train.precision == "bf16" and (checkup.on_gpu or has_bf16_instructions()):
        return torch.bfloat16
    return torch.float32


def _matrix_rate_check(checkup: Checkup) -> CheckResult:
    """The rate of a large product on each rank, and whether one of them is slow."""
    dtype = working_type(checkup)
    measured = measure_on_ranks(checkup.group, lambda: matrix_rate(checkup.group.device, dtype))
    if fault := first_fault("matrix_rate", measured, "look at the device of this rank (nvidia-smi)"):
        return fault
    rates = values_of(measured)
    median, lowest = statistics.median(rates), min(rates)
    name = str(dtype).removeprefix("torch.")
    text = f"{flops(median)}/s a rank in {name}"
    if len(rates) > 1:
        text += f"; lowest {flops(lowest)}/s on rank {rates.index(lowest)}"
    device = None
    if checkup.on_gpu and dtype == torch.bfloat16:
        device = known_device(torch.cuda.get_device_name(checkup.group.device))
    if device:
        text += f"; {lowest / device.flops:.0%} of the datasheet's {flops(device.flops)}/s"
    what_to_do = ""
    if lowest < SLOW_RANK * median:
        what_to_do = f"look at the host of rank {rates.index(lowest)}: other programs, heat, power limit"
    elif device and lowest < LOW_SHARE_OF_DATASHEET * device.flops:
        what_to_do = "look at clocks and power limit (nvidia-smi -q -d PERFORMANCE), and at other programs"
    status = "warning" if what_to_do else "ok"
    return CheckResult("matrix_rate", status, text, median / 1e12, "TFLOP/s", what_to_do)  # type: ignore[arg-type]


def _copy_check(checkup: Checkup) -> CheckResult:
    """The rate at which page-locked host memory reaches the GPU."""

    def measure() -> float:
        host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
        target = torch.empty_like(host, device=checkup.group.device)
        seconds = []
        for _ in range(REPETITIONS):
            wait_for_device(checkup.group.device)
            began = time.perf_counter()
            target.copy_(host, non_blocking=True)
            wait_for_device(checkup.group.device)
            seconds.append(time.perf_counter() - began)
        return COPY_BYTES / min(seconds)

    measured = measure_on_ranks(checkup.group, measure)
    what_to_do = "look at the PCIe link of this GPU (nvidia-smi -q -d PERFORMANCE; lspci -vv)"
    if fault := first_fault("host_to_device", measured, what_to_do):
        return fault
    rates = values_of(measured)
    lowest, median = min(rates), statistics.median(rates)
    text = f"{size(median)}/s a rank; lowest {size(lowest)}/s on rank {rates.index(lowest)}"
    if lowest < SLOW_RANK * median:
        return CheckResult("host_to_device", "warning", text, lowest / 1e9, "GB/s", what_to_do)
    return CheckResult("host_to_device", "ok", text, lowest / 1e9, "GB/s")


def _clock_check(checkup: Checkup) -> CheckResult:
    """Clocks of each rank's GPU right after the product, and whether heat or power holds them down."""
    fields = (
        "clocks.sm",
        "clocks.max.sm",
        "temperature.gpu",
        *(f"clocks_event_reasons.{n}" for n in THROTTLED),
    )

    def measure() -> list[str]:
        index = torch.cuda.current_device()
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        done = subprocess.run(
            [*command, f"--id=GPU-{uuid}"], capture_output=True, text=True, timeout=20, check=False
        )
        if done.returncode:
            raise ValueError(f"nvidia-smi: {(done.stdout or done.stderr).strip()[:200]}")
        return [cell.strip() for cell in done.stdout.strip().split(",")]

    measured = measure_on_ranks(checkup.group, measure)
    if fault := first_fault("clocks", measured, "look at nvidia-smi on this host"):
        return CheckResult("clocks", "warning", fault.text, what_to_do=fault.what_to_do)
    return clock_result(values_of(measured))


def clock_result(rows: list[list[str]]) -> CheckResult:
    """The check of nvidia-smi's cells of each rank: clock, highest clock, temperature, and the reasons."""
    shares = [float(clock) / float(highest) for clock, highest, *_ in rows]
    lowest = shares.index(min(shares))
    text = f"SM clock {min(shares):.0%} of its highest on rank {lowest}, {rows[lowest][2]} degrees"
    throttling = [
        f"rank {rank}: {name}"
        for rank, row in enumerate(rows)
        for name, state in zip(THROTTLED, row[3:], strict=False)
        if state == "Active"
    ]
    if throttling:
        text += f"; held down ({', '.join(throttling[:3])})"
        return CheckResult(
            "clocks", "warning", text, min(shares), "", "look at cooling and power of the host"
        )
    return CheckResult("clocks", "ok", text, min(shares))
