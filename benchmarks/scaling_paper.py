"""Predictions of `plan/forecast.py` for the paper's preset on clusters: tables of `benchmarks.scaling`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.table import Table

from benchmarks import scaling_costs, shuffle_quality
from benchmarks.scaling_costs import (
    CheckpointCost,
    FailureRate,
    best_interval,
    checkpoint_cost,
    efficiency,
    goodput,
)
from retfound_dist.config import loading as configs
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import ConfigError
from retfound_dist.model.flops import training_flops
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.plan.cluster import (
    ASSUMED_EFFICIENCY,
    INSIDE_LATENCY,
    LAUNCH_S,
    LINK_EFFICIENCY,
    OUTSIDE_LATENCY,
    OVERLAP,
)
from retfound_dist.plan.forecast import (
    ASSUMPTIONS,
    PERSISTENCE_THRESHOLD,
    Machine,
    Shape,
    StepTime,
    Work,
    forecast,
)
from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout

PRESET = Path(__file__).resolve().parent.parent / "configs" / "pretrain_vitl_oct.toml"
STAGES = (1, 2, 3)
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GPUS_PER_NODE = 8
LARGE_BUCKET = 500_000_000
"""DeepSpeed's own `reduce_bucket_size`, for comparison."""
STORE = 2e9
"""Bytes per second that a node reads from S3."""
HOST = 20e9
"""Bytes per second from a device to page-locked host memory, of the 32e9 that PCIe 4.0 x16 carries."""
WRITE = 0.5e9
"""Bytes per second at which rank 0 writes, hashes and uploads its part of a checkpoint, behind the steps."""
RESTART = 300.0
"""Seconds from a failure to the next step."""
SAVING = (1, 8, 64, 256)
"""GPUs of the tables on checkpoints."""
MTBF_H = (10, 100, 1000)
"""Hours between failures of one node."""
HOUR = 3600.0


def cluster(flops: float, memory: float, inside: float, outside: float) -> Machine:
    """Nodes of 8 GPUs; datasheet rates per second, bytes in one direction, `outside` for a whole node."""
    return Machine(
        flops=flops * ASSUMED_EFFICIENCY,
        memory_rate=memory,
        devices_per_node=GPUS_PER_NODE,
        inside_rate=inside * LINK_EFFICIENCY,
        outside_rate=outside * LINK_EFFICIENCY,
        inside_latency=INSIDE_LATENCY,
        outside_latency=OUTSIDE_LATENCY,
        launch=LAUNCH_S,
        store_rate=STORE,
    )


CLUSTERS = {
    "H100 SXM, 400 Gb/s for each GPU": cluster(989e12, 3.35e12, 450e9, 8 * 50e9),
    "H100 SXM, 400 Gb/s for each node": cluster(989e12, 3.35e12, 450e9, 50e9),
    "A100 SXM 40 GB, 400 Gb/s for each node": cluster(312e12, 1.555e12, 300e9, 50e9),
}


def inputs() -> tuple[str, ...]:
    """The inputs of the model, in sentences."""
    return (
        "Datasheets, bf16 dense: H100 SXM 989 TFLOP/s, 3.35 TB/s memory, NVLink 450 GB/s each way; "
        "A100 SXM 40 GB 312 TFLOP/s, 1.555 TB/s, NVLink 300 GB/s each way.",
        f"Assumed, not measured: {ASSUMED_EFFICIENCY:.0%} of those TFLOP/s, {LINK_EFFICIENCY:.0%} of links; "
        f"a pass takes at least {LAUNCH_S * 1000:.0f} ms; a hop {INSIDE_LATENCY * 1e6:.0f} us in a node, "
        f"{OUTSIDE_LATENCY * 1e6:.0f} us between nodes; {OVERLAP:.0%} of what can be hidden is.",
        f"Images of {shuffle_quality.BYTES / 1000:.0f} kB, {shuffle_quality.SAMPLES:,} of them; a node reads "
        f"{STORE / 1e9:g} GB/s from S3; how often a shard is fetched is counted from the plan.",
        f"A checkpoint stops the run while rank 0 copies its part (2 + 12 / GPUs bytes a parameter) to "
        f"host memory at {HOST / 1e9:g} GB/s (page-locked); files are written, uploaded and "
        f"fetched at {WRITE / 1e9:g} GB/s behind the steps; a restart takes {RESTART:.0f} s.",
    )


class Paper:
    """The paper's preset and its predicted steps."""

    def __init__(self) -> None:
        self.config, _ = configs.load(PretrainConfig, str(PRESET))
        with torch.device("meta"):
            net = MaskedAutoencoder(self.config.model)
        sizes = [p.numel() for p in net.parameters() if p.requires_grad]
        small = sum(n for n in sizes if n <= PERSISTENCE_THRESHOLD)
        batch, micro = self.config.train.global_batch, self.config.train.micro_batch
        if micro == "auto":
            raise ConfigError(f"{PRESET}: a forecast needs train.micro_batch as a number")
        self.micro = micro
        self.work = Work(sum(sizes), training_flops(net), batch, small, 2, shuffle_quality.BYTES)
        self.shard_copies = {nodes: copies(nodes, batch) for nodes in sorted({nodes_of(n) for n in GPUS})}

    def shape(self, gpus: int, stage: int) -> Shape:
        """The division of the preset's batch over so many GPUs."""
        layout = make_batch_layout(self.work.global_batch, gpus, self.micro)
        return Shape(gpus, layout.micro, layout.accumulation, stage)

    def step(self, machine: Machine, gpus: int, stage: int, **options: int) -> StepTime:
        """The prediction of a step on a cluster."""
        shard_copies = self.shard_copies[nodes_of(gpus)]
        return forecast(self.work, self.shape(gpus, stage), machine, OVERLAP, shard_copies, **options)

    def save(self, gpus: int) -> CheckpointCost:
        """The prediction of a checkpoint at ZeRO 1."""
        return checkpoint_cost(self.work, self.shape(gpus, 1), HOST, WRITE)

    def rate_for_one_step(self, machine: Machine, gpus: int) -> float:
        """Bytes per second to host memory at which a save stops the run for one step."""
        return self.save(gpus).bytes / self.step(machine, gpus, 1).step_s

    @property
    def images(self) -> float:
        """Images of the whole run."""
        return self.config.train.epochs * shuffle_quality.SAMPLES


def nodes_of(gpus: int) -> int:
    """Number of nodes for so many GPUs."""
    return -(-gpus // GPUS_PER_NODE)


def copies(nodes: int, batch: int) -> float:
    """Mean number of nodes that read a shard, with the default window."""
    if nodes == 1:
        return 1.0
    plan = BatchPlan(shuffle_quality.counts(), 0, batch, 16)
    return sum(len(cost) for cost in shuffle_quality.fetched(plan, nodes)) / len(plan.counts)


def predictions() -> Iterator[str | Table]:
    """Everything that is printed."""
    paper = Paper()
    yield "Assumptions:"
    yield from (f"- {text}" for text in (*inputs(), *ASSUMPTIONS, *scaling_costs.ASSUMPTIONS))
    yield ""
    yield sent(paper, next(iter(CLUSTERS.values())))
    for name, machine in CLUSTERS.items():
        yield ""
        yield speeds(paper, name, machine)
    machine = next(iter(CLUSTERS.values()))
    yield ""
    yield large_buckets(paper, machine)
    for name, machine in CLUSTERS.items():
        yield ""
        yield saves(paper, name, machine)
    for name, machine in CLUSTERS.items():
        yield ""
        yield failures(paper, name, machine)
    yield ""


def sent(paper: Paper, machine: Machine) -> Table:
    """Bytes that each rank sends in a step, one row for each number of GPUs."""
    work = paper.work
    title = f"Predicted: {PRESET.name}, {work.parameters / 1e6:.0f} M parameters, "
    title += f"{work.flops_per_image / 1e9:.0f} GFLOP an image, {work.global_batch:,} images a step"
    rows = []
    for gpus in GPUS:
        layout = paper.shape(gpus, 1)
        steps = [paper.step(machine, gpus, stage) for stage in STAGES]
        gigabytes = [f"{step.sent_bytes / 1e9:.2f}" for step in steps]
        rows.append(
            [str(gpus), f"{layout.accumulation} x {layout.micro}", f"{steps[0].padding:.1%}", *gigabytes]
        )
    heads = [f"ZeRO {stage} sends, GB" for stage in STAGES]
    return table(title, ["GPUs", "passes", "padding", *heads], rows)


def speeds(paper: Paper, name: str, machine: Machine) -> Table:
    """Images per second and efficiency, one row for each number of GPUs."""
    heads = ["GPUs", *(f"ZeRO {stage}" for stage in STAGES), "S3 MB/s a node", "hours"]
    rows = []
    for gpus in GPUS:
        steps = {stage: paper.step(machine, gpus, stage) for stage in STAGES}
        rates = [rated(paper, machine, gpus, stage, step) for stage, step in steps.items()]
        store = f"{steps[1].store_rate_needed / 1e6:,.0f}"
        hours = f"{paper.images / steps[1].images_per_s / HOUR:.1f}"
        rows.append([str(gpus), *rates, store, hours])
    title = (
        f"Predicted images/s and efficiency on {name}; S3 and hours of {paper.config.train.epochs:g} epochs"
    )
    return table(f"{title} at ZeRO 1", heads, rows)


def rated(paper: Paper, machine: Machine, gpus: int, stage: int, step: StepTime) -> str:
    """Images per second, and efficiency relative to one GPU."""
    share = efficiency(paper.step(machine, 1, stage), step, gpus)
    return f"{step.images_per_s:,.0f} {share:4.0%}"


def large_buckets(paper: Paper, machine: Machine, gpus: int = 16) -> str:
    """The effect of the bucket size, in a sentence."""
    own, large = (
        paper.step(machine, gpus, 2, **options).images_per_s for options in ({}, {"bucket": LARGE_BUCKET})
    )
    return (
        f"ZeRO 2 on {gpus} GPUs: {own:,.0f} images/s; with DeepSpeed's own buckets of "
        f"{LARGE_BUCKET / 1e6:.0f} M elements, {large:,.0f}."
    )


def saves(paper: Paper, name: str, machine: Machine) -> Table:
    """Times of a checkpoint and a step, one row for each number of GPUs."""
    heads = ["GPUs", "rank 0's part", "step", "stall", "in steps", "one step at"]
    heads += ["written behind", "in steps"]
    rows = []
    for gpus in SAVING:
        step, cost = paper.step(machine, gpus, 1).step_s, paper.save(gpus)
        rate = paper.rate_for_one_step(machine, gpus)
        rows.append(
            [
                str(gpus),
                f"{cost.bytes / 1e9:.2f} GB",
                f"{step:.3f} s",
                f"{cost.stall_s:.2f} s",
                f"{cost.stall_s / step:.1f}",
                f"{rate / 1e9:.0f} GB/s",
                f"{cost.behind_s:.1f} s",
                f"{cost.behind_s / step:.0f}",
            ]
        )
    return table(f"Predicted checkpoint, ZeRO 1, {name}", heads, rows)


def failures(paper: Paper, name: str, machine: Machine) -> Table:
    """Goodput by number of GPUs and nodes' time between failures, at the preset's interval and the best."""
    every = paper.config.checkpoint.every_steps
    heads = ["GPUs", f"{every} steps are", "stalls take"]
    heads += [f"node fails every {hours} h" for hours in MTBF_H]
    rows = []
    for gpus in SAVING[1:]:
        step, cost = paper.step(machine, gpus, 1).step_s, paper.save(gpus)
        interval = every * step
        cells = []
        for hours in MTBF_H:
            failing = FailureRate(hours * HOUR, nodes_of(gpus), cost.stall_s, RESTART, cost.behind_s)
            best = best_interval(failing)
            goodput_text = f"{goodput(interval, failing):.1%}, best {goodput(best, failing):.1%}"
            cells.append(f"{goodput_text} / {best / step:,.0f}")
        never = FailureRate(math.inf, 1, cost.stall_s, 0.0, cost.behind_s)
        rows.append([str(gpus), f"{interval:.0f} s", f"{1 - goodput(interval, never):.1%}", *cells])
    title = f"Predicted goodput every {every} steps, and the best / every so many steps; ZeRO 1, {name}"
    return table(title, heads, rows)


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of text."""
    cost = Table(title=title, title_justify="left")
    for head in heads:
        cost.add_column(head, justify="right")
    for row in rows:
        cost.add_row(*row)
    return cost
