"""What a pretraining run will do, take and cost, from its config, its data and a cluster. Pure, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig, Train
from retfound_dist.errors import ConfigError
from retfound_dist.estimate import model_shapes
from retfound_dist.estimate.gpu_memory import DeviceMemory, largest_micro_batch, peak
from retfound_dist.estimate.save_time import Grace, SaveTime, expected, insufficient_graces
from retfound_dist.plan.cluster import ACHIEVED, LAUNCH, OVERLAP, Cluster
from retfound_dist.plan.data_facts import DataFacts
from retfound_dist.plan.forecast import PERSISTENCE_THRESHOLD, Shape, Work, forecast
from retfound_dist.plan.measured_rates import Rate
from retfound_dist.plan.recipe_check.findings import Facts, Finding
from retfound_dist.plan.recipe_check.recipe_check import check
from retfound_dist.plan.store_traffic import Reads, node_reads
from retfound_dist.stream.batch_plan import BatchLayout, make_batch_layout
from retfound_dist.stream.batch_plan import BatchPlan as Order

DECODED = 900
"""Images per second that a core reads and crops: `make bench-stream` (512 x 496 JPEG)."""


@dataclass(frozen=True)
class StageMemory:
    """Memory of a GPU at one ZeRO stage."""

    stage: int
    memory: DeviceMemory
    fits: bool
    largest_micro: int
    """The most images of a pass that fit, up to a rank's share of a step; 0: none."""


@dataclass(frozen=True)
class Speed:
    """How fast, and how that is known."""

    step_s: float
    images_per_s: float
    needed_images_per_s: float
    """To finish in the time that was asked for."""
    store_rate: float
    """Bytes per second that each node reads from the store in an epoch without cache."""
    source: str


@dataclass(frozen=True)
class Saves:
    """Checkpoints of the whole run."""

    count: int
    weights_bytes: float
    """Of one: kept for good."""
    state_bytes: float
    """Of one: kept of the newest."""
    kept_states: int
    every_s: float

    @property
    def total_bytes(self) -> float:
        """At the end of the run."""
        return self.count * self.weights_bytes + self.kept_states * self.state_bytes


@dataclass(frozen=True)
class RunPlan:
    """All that `retfound plan` says."""

    cluster: Cluster
    data: DataFacts
    parameters: int
    flops_per_image: int
    cut: BatchLayout
    steps: int
    epochs: float
    stages: tuple[StageMemory, ...]
    stage: int
    """The one that runs: 0 runs as 1."""
    speed: Speed
    saves: Saves
    to_save: SaveTime
    """From being asked to stop until all is saved."""
    reads: Reads
    findings: tuple[Finding, ...]
    within_hours: float

    @property
    def images(self) -> int:
        """Seen in the whole run."""
        return self.steps * self.cut.global_batch

    @property
    def hours(self) -> float:
        """Wall time of steps alone."""
        return self.steps * self.speed.step_s / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs."""
        return self.hours * self.cluster.ranks

    @property
    def chosen(self) -> StageMemory:
        """Memory at the stage that runs."""
        return next(s for s in self.stages if s.stage == self.stage)


def plan_run(
    config: PretrainConfig,
    data: DataFacts,
    cluster: Cluster,
    rate: Rate | None,
    within_hours: float,
    graces: Sequence[Grace] = (),
) -> RunPlan:
    """The plan of a run on a cluster; `rate`: measured on one such GPU, where it was.

    `graces`: how long those who may stop it are known to wait for a save.
    ConfigError for a model that cannot be built.
    """
    model, train = config.model, config.train
    if any(side % model_shapes.encoder_shape(model.name).patch for side in model.size):
        raise ConfigError(
            f"model.image_size={model.image_size}: give a multiple of the patch of {model.name}"
        )
    # Stage 0 runs as stage 1 (docs/design.md, choices that may surprise).
    stage, memory = max(1, train.zero_stage), cluster.device.memory_gb * 1e9
    cut = make_batch_layout(train.global_batch, cluster.ranks, _micro(config, cluster, stage, memory))
    stages = tuple(_stage(config, cluster, each, cut.micro, memory) for each in (1, 2, 3))
    window = min(config.data.window_shards, len(data.counts))
    order = Order(data.counts, train.seed, train.global_batch, window)
    reads = node_reads(order, data.sizes, cluster.nodes, cluster.gpus_per_node)
    epochs = train.epochs or train.steps * train.global_batch / data.samples
    # 1e-9: a product that should be whole may come out a little larger, and would count as one step more.
    steps = train.steps or max(1, math.ceil(epochs * data.samples / train.global_batch - 1e-9))
    needed = steps * train.global_batch / (within_hours * 3600)
    speed = _speed(config, data, cluster, cut, stage, reads, rate, needed)
    saves = _saves(config, steps, speed.step_s)
    to_save = expected(saves.state_bytes, saves.weights_bytes, cluster.nodes, speed.step_s)
    findings = _memory_findings(train, cluster, stages[stage - 1]) + check(
        config, facts_of(data, cluster, cut)
    )
    findings += _grace_findings(train, graces, to_save)
    return RunPlan(
        cluster=cluster,
        data=data,
        parameters=model_shapes.parameters(model),
        flops_per_image=model_shapes.training_flops(model),
        cut=cut,
        steps=steps,
        epochs=epochs,
        stages=stages,
        stage=stage,
        speed=speed,
        saves=saves,
        to_save=to_save,
        reads=reads,
        findings=tuple(findings),
        within_hours=within_hours,
    )


def facts_of(data: DataFacts, cluster: Cluster | None, cut: BatchLayout) -> Facts:
    """What the recipe check wants to know."""
    return Facts(
        samples=data.samples,
        shards=len(data.counts),
        largest_shard_bytes=max(data.sizes),
        remote=data.remote,
        ranks=cut.world,
        ranks_per_node=cluster.gpus_per_node if cluster else 0,
        micro_batch=cut.micro,
        padding=cut.padding / cut.padded,
        held_out=data.held_out,
        patients=data.patients,
        volumes=data.volumes,
        image=data.image,
    )


def _micro(config: PretrainConfig, cluster: Cluster, stage: int, memory: float) -> int:
    """The micro-batch that was set; for `auto` the largest that fits, at least 1."""
    micro = config.train.micro_batch
    return micro if micro != "auto" else max(1, _largest(config, cluster, stage, memory))


def _largest(config: PretrainConfig, cluster: Cluster, stage: int, memory: float) -> int:
    train = config.train
    return largest_micro_batch(
        config.model,
        memory,
        ranks=cluster.ranks,
        zero_stage=stage,
        precision=train.precision,
        activation_checkpointing=train.activation_checkpointing,
        offload_optimizer=train.offload_optimizer,
        most=-(-train.global_batch // cluster.ranks),
    )


def _stage(config: PretrainConfig, cluster: Cluster, stage: int, micro: int, memory: float) -> StageMemory:
    train = config.train
    taken = peak(
        config.model,
        ranks=cluster.ranks,
        zero_stage=stage,
        micro_batch=micro,
        precision=train.precision,
        activation_checkpointing=train.activation_checkpointing,
        offload_optimizer=train.offload_optimizer,
    )
    return StageMemory(stage, taken, taken.total <= memory, _largest(config, cluster, stage, memory))


def _speed(
    config: PretrainConfig,
    data: DataFacts,
    cluster: Cluster,
    cut: BatchLayout,
    stage: int,
    reads: Reads,
    rate: Rate | None,
    needed: float,
) -> Speed:
    """A step by the model of `forecast.py`, with the rate of one GPU as measured or from the datasheet."""
    model, device = config.model, cluster.device
    flops = model_shapes.training_flops(model)
    if config.train.activation_checkpointing:
        flops = flops * 4 // 3  # each block's forward pass once more
    sizes = list(model_shapes.parameter_sizes(model))
    small, element = (
        sum(n for n in sizes if n <= PERSISTENCE_THRESHOLD),
        2 if config.train.precision == "bf16" else 4,
    )
    work = Work(sum(sizes), flops, cut.global_batch, small, element, data.bytes / data.samples)
    reached, launch = device.flops * ACHIEVED, LAUNCH
    source = f"{ACHIEVED:.0%}, assumed, of {device.flops / 1e12:g} TFLOP/s ({device.source})"
    if rate is not None:
        reached, source = _reached(work, cluster, cut, stage, rate), f"measured on one: {rate.source}"
        # A measured pass includes its launches, so they cannot take longer than the pass.
        launch = min(launch, cut.micro * flops / reached)
    shape = Shape(cluster.ranks, cut.micro, cut.accumulation, stage)
    step = forecast(work, shape, cluster.machine(reached, launch), OVERLAP, reads.copies)
    return Speed(step.step_s, step.images_per_s, needed, step.store_rate_needed, source)


def _reached(work: Work, cluster: Cluster, cut: BatchLayout, stage: int, rate: Rate) -> float:
    """Operations per second of the passes alone, from a whole step's rate on one device."""
    alone = make_batch_layout(cut.global_batch, 1, cut.micro)
    shape = Shape(1, alone.micro, alone.accumulation, stage)
    one = forecast(work, shape, cluster.machine(cluster.device.flops))
    whole = work.global_batch / rate.images_per_s
    # The overhead of the model may exceed that of the measured machine: then half of the step counts as
    # computing.
    passes = max(whole / 2, whole - (one.step_s - one.compute_s))
    return work.global_batch * work.flops_per_image / passes


def _saves(config: PretrainConfig, steps: int, step_s: float) -> Saves:
    """Weights in fp32, and state."""
    every, keep = config.checkpoint.every_steps, config.checkpoint
    count = steps // every + (1 if steps % every else 0)
    states = min(count, keep.keep_last)
    if keep.keep_every_steps:
        # A state is kept for good where a save falls on a multiple of keep_every_steps.
        states = min(count, states + steps // math.lcm(every, keep.keep_every_steps))
    tokens = model_shapes.tokens(config.model)
    widths = model_shapes.encoder_shape(config.model.name).width + config.model.decoder_width
    # Positions are fixed, so they are no parameters, but they are saved with the weights.
    fixed = (tokens.patches + 1) * widths
    trained = model_shapes.parameters(config.model)
    state = model_shapes.state_bytes(config.model, config.train.precision)
    return Saves(count, 4.0 * (trained + fixed), float(state), states, every * step_s)


def _memory_findings(train: Train, cluster: Cluster, chosen: StageMemory) -> list[Finding]:
    """Whether what was set fits into the GPUs' memory."""
    if chosen.fits:
        return []
    have, taken = cluster.device.memory_gb, chosen.memory.total / 1e9
    if chosen.largest_micro:
        instead = f"train.micro_batch={chosen.largest_micro} (the batch stays), or 'auto'"
    else:
        instead = (
            "a higher train.zero_stage, more GPUs, train.activation_checkpointing or offload_optimizer=true"
        )
    return [
        Finding(
            "serious",
            "train.micro_batch",
            f"ZeRO {chosen.stage} with this micro-batch takes some {taken:.1f} GB of a GPU that has {have:g}",
            "The run would end at its first step, out of memory",
            "retfound_dist/estimate/gpu_memory.py",
            instead,
        )
    ]


def _grace_findings(train: Train, graces: Sequence[Grace], need: SaveTime) -> list[Finding]:
    """Whoever would end the run before it is saved."""
    all_graces = [
        Grace(train.grace_s, "train.grace_s", "train.grace_s higher, or fewer bytes a host"),
        *graces,
    ]
    text = f"a save takes some {need.seconds:.2g} s ({need.source}), {{}} leaves it {{:g}}"
    return [
        Finding(
            "warning",
            "train.grace_s",
            text.format(grace.source, grace.seconds),
            "What was done since the last checkpoint would be lost",
            "retfound_dist/estimate/save_time.py",
            grace.instead,
        )
        for grace in insufficient_graces(all_graces, need)
    ]


def serious(findings: Sequence[Finding]) -> bool:
    """Whether `--strict` refuses."""
    return any(finding.level == "serious" for finding in findings)
