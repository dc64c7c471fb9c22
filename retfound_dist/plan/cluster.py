"""Finds the machines that a run would have: from flags, the Slurm allocation, or this host's GPUs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace

from retfound_dist.errors import ConfigError
from retfound_dist.plan.forecast import Machine
from retfound_dist.runtime.world import whole_number

ACHIEVED = 0.35
"""Share of the datasheet's bf16 rate that training is assumed to reach."""
LINK = 0.8
"""Share of a link's rate that NCCL reaches."""
INSIDE_LATENCY, OUTSIDE_LATENCY = 3e-6, 10e-6
"""Seconds a hop inside a node, and between nodes."""
LAUNCH = 0.02
"""Seconds in which the host launches a ViT-L's forward and backward pass, uncompiled."""
OVERLAP = 0.8
"""Share of the communication that can travel behind the passes and does."""
NODE_LINK = 50e9
"""Bytes per second of a node's network, one direction: 400 Gb/s."""
GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A GPU as its datasheet gives it."""

    name: str
    flops: float
    """bf16 operations per second, dense, accumulated in fp32."""
    memory_gb: float
    """10^9 bytes."""
    memory_rate: float
    """Bytes per second."""
    link: float
    """Bytes per second to other GPUs of the node, one direction: NVLink, or PCIe."""
    source: str
    """The datasheet."""


DEVICES = (
    Device("A100-40GB", 312e12, 40, 1.555e12, 300e9, "NVIDIA A100 datasheet, SXM 40 GB"),
    Device("A100-80GB", 312e12, 80, 2.039e12, 300e9, "NVIDIA A100 datasheet, SXM 80 GB"),
    Device("H100-80GB", 989e12, 80, 3.35e12, 450e9, "NVIDIA H100 datasheet, SXM"),
    Device("H200-141GB", 989e12, 141, 4.8e12, 450e9, "NVIDIA H200 datasheet, SXM"),
    Device("RTX4090-24GB", 165.2e12, 24, 1.008e12, 32e9, "NVIDIA Ada architecture whitepaper, RTX 4090"),
    Device("RTX3090-24GB", 71e12, 24, 0.936e12, 32e9, "NVIDIA Ampere GA102 whitepaper, RTX 3090"),
    Device("A10-24GB", 125e12, 24, 0.6e12, 32e9, "NVIDIA A10 datasheet"),
    Device("L4-24GB", 121e12, 24, 0.3e12, 32e9, "NVIDIA L4 datasheet, dense"),
    Device("L40S-48GB", 362e12, 48, 0.864e12, 32e9, "NVIDIA L40S datasheet, dense"),
    Device("A6000-48GB", 155e12, 48, 0.768e12, 32e9, "NVIDIA Ampere GA102 whitepaper, RTX A6000"),
)
"""In the order in which a size of memory is guessed at."""


@dataclass(frozen=True)
class Cluster:
    """Equal nodes, one rank a GPU."""

    nodes: int
    gpus_per_node: int
    device: Device
    node_link: float = NODE_LINK
    """Bytes per second of a node's network, one direction."""
    source: str = "given"
    """How it is known."""

    @property
    def ranks(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus_per_node

    def machine(self, flops: float, launch: float = LAUNCH) -> Machine:
        """For the forecast; `flops`: what training reaches on one GPU, in operations per second."""
        return Machine(
            flops=flops,
            memory_rate=self.device.memory_rate,
            devices_per_node=self.gpus_per_node,
            inside_rate=self.device.link * LINK,
            outside_rate=self.node_link * LINK,
            inside_latency=INSIDE_LATENCY,
            outside_latency=OUTSIDE_LATENCY,
            launch=launch,
        )


@dataclass(frozen=True)
class ClusterFlags:
    """The flags that describe the cluster; 0 or empty: not given."""

    nodes: int = 0
    gpus_per_node: int = 0
    gpu_memory_gb: float = 0.0
    device: str = ""
    node_link_gbit: float = 0.0


def find_cluster(wish: ClusterFlags, env: Mapping[str, str]) -> Cluster:
    """The cluster that was asked for; what was not said comes from Slurm, this host, or the paper.

    ConfigError for a device that is not known, or a number below 1.
    """
    for flag, value in (("--nodes", wish.nodes), ("--gpus-per-node", wish.gpus_per_node)):
        if value < 0:
            raise ConfigError(f"{flag} {value}: give 1 or more")
    if wish.gpu_memory_gb < 0 or wish.node_link_gbit < 0:
        raise ConfigError("--gpu-memory-gb and --node-link-gbit must be above 0")
    around = _slurm(env) or (_here() if not (wish.nodes or wish.gpus_per_node) else None)
    if around is None and not (wish.nodes or wish.gpus_per_node):
        around = Cluster(1, 8, DEVICES[0], source="assumed: the paper's 8 A100 of 40 GB; say --nodes ...")
    base = around or Cluster(1, 1, DEVICES[0])
    cluster = Cluster(
        wish.nodes or base.nodes,
        wish.gpus_per_node or (base.gpus_per_node if around else 8 if wish.nodes else 1),
        base.device,
        # 1 Gbit/s is 1.25e8 bytes/s.
        (wish.node_link_gbit or NODE_LINK / 1.25e8) * 1.25e8,
        "given" if wish.nodes and wish.gpus_per_node else base.source,
    )
    return replace(cluster, device=_device(wish, base.device))


def _device(wish: ClusterFlags, known: Device) -> Device:
    """The device of a name, or the one that a size of memory is nearest to."""
    device = known
    if wish.device:
        device = device_named(wish.device)
    elif wish.gpu_memory_gb:
        device = min(DEVICES, key=lambda d: abs(d.memory_gb - wish.gpu_memory_gb))
    return replace(device, memory_gb=wish.gpu_memory_gb) if wish.gpu_memory_gb else device


def device_named(text: str) -> Device:
    """The device whose name holds all parts of the text (`h100`, `NVIDIA A100-SXM4-40GB`)."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    by_length = sorted(DEVICES, key=lambda d: -len(d.name.split("-")[0]))
    least = {d.name.split("-")[0]: d.memory_gb for d in reversed(DEVICES)}
    # Longer names first, because `L4` is a part of `L40S`.
    for device in by_length:
        model, memory = device.name.lower().split("-")
        if plain == model + memory or (model in plain and memory in plain):
            return device
    for device in by_length:  # L40S before L4
        if (
            device.name.lower().split("-")[0] in plain
            and device.memory_gb == least[device.name.split("-")[0]]
        ):
            return device
    names = ", ".join(d.name for d in DEVICES)
    raise ConfigError(f"--device {text!r} is not known: choose one of {names}")


def _slurm(env: Mapping[str, str]) -> Cluster | None:
    """The allocation that this process stands in; where it has no GPUs, a task counts as one."""
    if not env.get("SLURM_JOB_ID"):
        return None
    nodes = max(1, whole_number(env, "SLURM_JOB_NUM_NODES", whole_number(env, "SLURM_NNODES", 1)))
    kind, gpus_per_node = "", 0
    # SLURM_GPUS counts those of the whole job, the other two those of a node.
    for name, share in (("SLURM_GPUS_PER_NODE", 1), ("SLURM_GPUS_ON_NODE", 1), ("SLURM_GPUS", nodes)):
        if match := re.match(r"(?:(.*):)?(\d+)$", env.get(name, "")):
            kind, gpus_per_node = match[1] or kind, gpus_per_node or int(match[2]) // share
    source = f"Slurm job {env['SLURM_JOB_ID']}"
    if not gpus_per_node:
        tasks = re.match(r"\d+", env.get("SLURM_TASKS_PER_NODE", ""))
        gpus_per_node, source = (
            int(tasks[0]) if tasks else 1,
            f"{source}, which has no GPUs: its tasks are counted",
        )
    try:
        # A type of GPU that is not in the table must not stop the plan: --device says which it is like.
        device = device_named(kind) if kind else DEVICES[0]
    except ConfigError:
        device = DEVICES[0]
    return Cluster(nodes, gpus_per_node, device, source=source)


def _here() -> Cluster | None:
    """This host's GPUs, where the driver's own tool is there to name them."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        # A driver in trouble can let nvidia-smi hang. The plan does without then.
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=3)
        names = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
        # nvidia-smi gives MiB. A GPU that is sold with 80 GB has 80 GiB, so these are compared in GiB.
        memory = float(names[0][1]) * 2**20 / 1e9
        nearest = min(DEVICES, key=lambda d: abs(d.memory_gb * GIB / 1e9 - memory))
        same_name = [
            d for d in DEVICES if d.name.split("-")[0].lower() in names[0][0].replace(" ", "").lower()
        ]
        device = min(same_name or [nearest], key=lambda d: abs(d.memory_gb * GIB / 1e9 - memory))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return Cluster(1, len(names), device, source=f"this host's GPUs ({names[0][0].strip()})")
