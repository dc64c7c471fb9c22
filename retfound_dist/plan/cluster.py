"""Describes the cluster of a planned run: from flags, the Slurm allocation, or this host's GPUs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace

from retfound_dist.errors import ConfigError
from retfound_dist.plan.forecast import Machine
from retfound_dist.runtime.world import whole_number

ASSUMED_EFFICIENCY = 0.35
"""Assumed share of the datasheet's bf16 rate that training reaches."""
LOW_EFFICIENCY = 0.11
"""The share that a published training of a ViT-L reached: MAE's on V100, 106 images/s a GPU. Others reached
17 % (DINOv3 on H100) and 1.3 % (RETFound on A100). So until a rate is measured, a plan gives two times."""
LINK_EFFICIENCY = 0.8
"""Assumed share of a link's rate that NCCL reaches."""
INSIDE_LATENCY, OUTSIDE_LATENCY = 3e-6, 10e-6
"""Assumed seconds for each hop, inside a node and between nodes."""
LAUNCH_S = 0.02
"""Seconds that the host needs to launch the kernels of a ViT-L's forward and backward pass, not compiled."""
OVERLAP = 0.8
"""Assumed share of the communication that overlaps with the passes, of all that can."""
NODE_LINK_BYTES_PER_S = 50e9
"""Assumed bytes per second of a node's network in one direction: 400 Gb/s."""
GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A GPU with the values of its datasheet."""

    name: str
    flops: float
    """bf16 operations per second, dense, accumulated in fp32."""
    memory_gb: float
    """In 10^9 bytes."""
    memory_rate: float
    """Bytes per second."""
    link: float
    """Bytes per second to other GPUs of the node in one direction, over NVLink or PCIe."""
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
"""The known devices. Where only a memory size is given, the first device of the nearest size is taken."""


def known_device(name: str) -> Device | None:
    """The datasheet of a GPU, by torch's name of it (`NVIDIA H100 80GB HBM3`); None of an unknown one."""
    plain = name.replace(" ", "").lower()
    # The longest name: an L40S is no L4.
    matching = [device for device in DEVICES if _model_name(device.name) in plain]
    return max(matching, key=lambda device: len(_model_name(device.name)), default=None)


def is_same_model(name: str, device: str) -> bool:
    """Whether torch's name of a GPU is of the model of `device` (a name in `DEVICES`), with any memory."""
    device_of_name = known_device(name)
    return device_of_name is not None and _model_name(device_of_name.name) == _model_name(device)


def _model_name(device: str) -> str:
    """`A100-80GB` -> `a100`."""
    return device.split("-")[0].lower()


@dataclass(frozen=True)
class Cluster:
    """Equal nodes with one rank on each GPU."""

    nodes: int
    gpus_per_node: int
    device: Device
    node_link: float = NODE_LINK_BYTES_PER_S
    """Bytes per second of a node's network in one direction."""
    source: str = "from flags"
    """Where the description comes from, for a person."""

    @property
    def ranks(self) -> int:
        """Number of GPUs of all nodes."""
        return self.nodes * self.gpus_per_node

    def machine(self, flops: float, launch: float = LAUNCH_S) -> Machine:
        """The cluster for the forecast; `flops`: operations per second that training reaches on one GPU."""
        return Machine(
            flops=flops,
            memory_rate=self.device.memory_rate,
            devices_per_node=self.gpus_per_node,
            inside_rate=self.device.link * LINK_EFFICIENCY,
            outside_rate=self.node_link * LINK_EFFICIENCY,
            inside_latency=INSIDE_LATENCY,
            outside_latency=OUTSIDE_LATENCY,
            launch=launch,
        )


@dataclass(frozen=True)
class ClusterFlags:
    """The flags that describe the cluster; 0 or empty where a flag was not given."""

    nodes: int = 0
    gpus_per_node: int = 0
    gpu_memory_gb: float = 0.0
    device: str = ""
    node_link_gbit: float = 0.0


def find_cluster(flags: ClusterFlags, env: Mapping[str, str]) -> Cluster:
    """The cluster of the flags, completed from the Slurm allocation, this host, or the paper.

    ConfigError for an unknown device or a number below 1.
    """
    for flag, value in (("--nodes", flags.nodes), ("--gpus-per-node", flags.gpus_per_node)):
        if value < 0:
            raise ConfigError(f"{flag} {value}: give 1 or more")
    if flags.gpu_memory_gb < 0 or flags.node_link_gbit < 0:
        raise ConfigError("--gpu-memory-gb and --node-link-gbit must be above 0")
    detected = _slurm_cluster(env) or (_local_cluster() if not (flags.nodes or flags.gpus_per_node) else None)
    if detected is None and not (flags.nodes or flags.gpus_per_node):
        detected = Cluster(1, 8, DEVICES[0], source="assumed: the paper's 8 A100 of 40 GB; give --nodes ...")
    base = detected or Cluster(1, 1, DEVICES[0])
    cluster = Cluster(
        flags.nodes or base.nodes,
        flags.gpus_per_node or (base.gpus_per_node if detected else 8 if flags.nodes else 1),
        base.device,
        # 1 Gbit/s is 1.25e8 bytes/s.
        (flags.node_link_gbit or NODE_LINK_BYTES_PER_S / 1.25e8) * 1.25e8,
        "from flags" if flags.nodes and flags.gpus_per_node else base.source,
    )
    return replace(cluster, device=_device(flags, base.device))


def _device(flags: ClusterFlags, detected: Device) -> Device:
    """The device by the flag's name, else the one of the nearest memory size, else the detected one."""
    device = detected
    if flags.device:
        device = find_device(flags.device)
    elif flags.gpu_memory_gb:
        device = min(DEVICES, key=lambda d: abs(d.memory_gb - flags.gpu_memory_gb))
    return replace(device, memory_gb=flags.gpu_memory_gb) if flags.gpu_memory_gb else device


def find_device(text: str) -> Device:
    """The device that a text names (`h100`, `NVIDIA A100-SXM4-40GB`); ConfigError where there is none."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    by_length = sorted(DEVICES, key=lambda d: -len(d.name.split("-")[0]))
    smallest = {d.name.split("-")[0]: d.memory_gb for d in reversed(DEVICES)}
    # Longer names first, because `L4` is a part of `L40S`.
    for device in by_length:
        model, memory = device.name.lower().split("-")
        if plain == model + memory or (model in plain and memory in plain):
            return device
    for device in by_length:  # L40S before L4
        if (
            device.name.lower().split("-")[0] in plain
            and device.memory_gb == smallest[device.name.split("-")[0]]
        ):
            return device
    names = ", ".join(d.name for d in DEVICES)
    raise ConfigError(f"--device {text!r} is unknown: choose one of {names}")


def _slurm_cluster(env: Mapping[str, str]) -> Cluster | None:
    """The Slurm allocation of this process; without GPUs, each task counts as one."""
    if not env.get("SLURM_JOB_ID"):
        return None
    nodes = max(1, whole_number(env, "SLURM_JOB_NUM_NODES", whole_number(env, "SLURM_NNODES", 1)))
    kind, gpus_per_node = "", 0
    # SLURM_GPUS counts the GPUs of the whole job, the other two those of a node.
    for name, counted_nodes in (("SLURM_GPUS_PER_NODE", 1), ("SLURM_GPUS_ON_NODE", 1), ("SLURM_GPUS", nodes)):
        if match := re.match(r"(?:(.*):)?(\d+)$", env.get(name, "")):
            kind, gpus_per_node = match[1] or kind, gpus_per_node or int(match[2]) // counted_nodes
    source = f"Slurm job {env['SLURM_JOB_ID']}"
    if not gpus_per_node:
        tasks = re.match(r"\d+", env.get("SLURM_TASKS_PER_NODE", ""))
        gpus_per_node, source = (
            int(tasks[0]) if tasks else 1,
            f"{source}, without GPUs: its tasks are counted",
        )
    try:
        # A GPU type that is not in the table must not stop the plan: --device can name a similar one.
        device = find_device(kind) if kind else DEVICES[0]
    except ConfigError:
        device = DEVICES[0]
    return Cluster(nodes, gpus_per_node, device, source=source)


def _local_cluster() -> Cluster | None:
    """This host's GPUs; None where nvidia-smi finds none."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        # A faulty driver can make nvidia-smi hang. The plan then ignores this host's GPUs.
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=3)
        names = [line.rsplit(",", 1) for line in output.stdout.splitlines() if "," in line]
        # nvidia-smi prints MiB. A GPU that is sold with 80 GB has 80 GiB, so sizes are compared in GiB.
        memory = float(names[0][1]) * 2**20 / 1e9
        nearest = min(DEVICES, key=lambda d: abs(d.memory_gb * GIB / 1e9 - memory))
        same_name = [
            d for d in DEVICES if d.name.split("-")[0].lower() in names[0][0].replace(" ", "").lower()
        ]
        device = min(same_name or [nearest], key=lambda d: abs(d.memory_gb * GIB / 1e9 - memory))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return Cluster(1, len(names), device, source=f"this host's GPUs ({names[0][0].strip()})")
