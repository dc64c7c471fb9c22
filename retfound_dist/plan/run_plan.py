"""Plans a pretraining run: its length, memory, speed and cost on a cluster. Pure, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig, Train
from retfound_dist.errors import ConfigError
from retfound_dist.estimate import model_shapes
from retfound_dist.estimate.gpu_memory import DeviceMemory, largest_micro_batch, peak_memory
from retfound_dist.estimate.save_time import Grace, SaveTime, expected_save_time, insufficient_graces
from retfound_dist.plan.cluster import Cluster
from retfound_dist.plan.data_facts import DataFacts
from retfound_dist.plan.measured_rates import MeasuredRate
from retfound_dist.plan.predicted_speed import Speed, predict_speed
from retfound_dist.plan.recipe_check.findings import Facts, Finding
from retfound_dist.plan.recipe_check.recipe_check import check
from retfound_dist.plan.store_traffic import NodeReads, node_reads
from retfound_dist.stream.batch_plan import BatchLayout, make_batch_layout
from retfound_dist.stream.batch_plan import BatchPlan as Order


@dataclass(frozen=True)
class StageMemory:
    """Memory of a GPU at one ZeRO stage."""

    stage: int
    memory: DeviceMemory
    fits: bool
    largest_micro_batch: int
    """The most images of a pass that fit, up to a rank's share of a step; 0 where none fits."""


@dataclass(frozen=True)
class PlannedCheckpoints:
    """The checkpoints of the whole run."""

    count: int
    weights_bytes: float
    """Weights of one checkpoint. They are never deleted."""
    state_bytes: float
    """Training state of one checkpoint. Only the newest keep it."""
    kept_states: int
    """Checkpoints that keep their training state."""
    interval_s: float

    @property
    def total_bytes(self) -> float:
        """Bytes of all checkpoints at the end of the run."""
        return self.count * self.weights_bytes + self.kept_states * self.state_bytes


@dataclass(frozen=True)
class RunPlan:
    """Everything that `retfound plan` prints."""

    cluster: Cluster
    data: DataFacts
    parameters: int
    flops_per_image: int
    batch: BatchLayout
    steps: int
    epochs: float
    stages: tuple[StageMemory, ...]
    stage: int
    """The ZeRO stage of the run. Stage 0 runs as stage 1."""
    speed: Speed
    checkpoints: PlannedCheckpoints
    save_time: SaveTime
    """Time from a request to stop until everything is saved."""
    node_reads: NodeReads
    findings: tuple[Finding, ...]
    within_hours: float

    @property
    def images(self) -> int:
        """Images seen in the whole run."""
        return self.steps * self.batch.global_batch

    @property
    def hours(self) -> float:
        """Wall time of the steps, without interruptions."""
        return self.steps * self.speed.step_s / 3600

    @property
    def slow_hours(self) -> float | None:
        """The same at `LOW_EFFICIENCY`; None where the rate of a GPU was measured."""
        return None if self.speed.slow_step_s is None else self.steps * self.speed.slow_step_s / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs."""
        return self.hours * self.cluster.ranks


def plan_run(
    config: PretrainConfig,
    data: DataFacts,
    cluster: Cluster,
    rate: MeasuredRate | None,
    within_hours: float,
    graces: Sequence[Grace] = (),
) -> RunPlan:
    """The plan of a run on a cluster; `rate`: the measured rate of one such GPU, where there is one.

    `graces`: how long schedulers that may stop the run wait for its save.
    ConfigError for a model that cannot be built.
    """
    model, train = config.model, config.train
    if any(side % model_shapes.encoder_shape(model.name).patch for side in model.size):
        raise ConfigError(
            f"model.image_size={model.image_size}: give a multiple of the patch of {model.name}"
        )
    # Stage 0 runs as stage 1 (docs/design.md, choices that may surprise).
    stage, device_bytes = max(1, train.zero_stage), cluster.device.memory_gb * 1e9
    batch = make_batch_layout(
        train.global_batch, cluster.ranks, _micro_batch(config, cluster, stage, device_bytes)
    )
    stages = tuple(_stage_memory(config, cluster, number, batch, device_bytes) for number in (1, 2, 3))
    window = min(config.data.window_shards, len(data.counts))
    order = Order(data.counts, train.seed, train.global_batch, window)
    reads = node_reads(order, data.sizes, cluster.nodes, cluster.gpus_per_node)
    epochs = train.epochs or train.steps * train.global_batch / data.samples
    # 1e-9: rounding can make a whole number a little larger, which would add one step.
    steps = train.steps or max(1, math.ceil(epochs * data.samples / train.global_batch - 1e-9))
    images_per_s_needed = steps * train.global_batch / (within_hours * 3600)
    speed = predict_speed(config, data, cluster, batch, stage, reads, rate, images_per_s_needed)
    checkpoints = _checkpoints(config, steps, speed.step_s)
    save_time = expected_save_time(
        checkpoints.state_bytes, checkpoints.weights_bytes, cluster.nodes, speed.step_s
    )
    findings = _memory_findings(train, cluster, stages[stage - 1]) + check(
        config, recipe_facts(data, cluster, batch)
    )
    findings += _grace_findings(train, graces, save_time)
    return RunPlan(
        cluster=cluster,
        data=data,
        parameters=model_shapes.parameter_count(model),
        flops_per_image=model_shapes.training_flops(model),
        batch=batch,
        steps=steps,
        epochs=epochs,
        stages=stages,
        stage=stage,
        speed=speed,
        checkpoints=checkpoints,
        save_time=save_time,
        node_reads=reads,
        findings=tuple(findings),
        within_hours=within_hours,
    )


def recipe_facts(data: DataFacts, cluster: Cluster | None, batch: BatchLayout) -> Facts:
    """The facts that the recipe check uses."""
    return Facts(
        samples=data.samples,
        shards=len(data.counts),
        largest_shard_bytes=max(data.sizes),
        remote=data.remote,
        ranks=batch.world,
        ranks_per_node=cluster.gpus_per_node if cluster else 0,
        micro_batch=batch.micro,
        padding=batch.padding / batch.padded,
        held_out=data.held_out,
        patients=data.patients,
        volumes=data.volumes,
        image=data.image,
    )


def _micro_batch(config: PretrainConfig, cluster: Cluster, stage: int, device_bytes: float) -> int:
    """The micro-batch of the config; for `auto` the largest that fits, at least 1."""
    micro = config.train.micro_batch
    return micro if micro != "auto" else max(1, _largest_micro_batch(config, cluster, stage, device_bytes))


def _largest_micro_batch(config: PretrainConfig, cluster: Cluster, stage: int, device_bytes: float) -> int:
    """The largest micro-batch that fits into `device_bytes` at a ZeRO stage; 0 where none does."""
    train = config.train
    return largest_micro_batch(
        config.model,
        device_bytes,
        ranks=cluster.ranks,
        zero_stage=stage,
        precision=train.precision,
        activation_checkpointing=train.activation_checkpointing,
        offload_optimizer=train.offload_optimizer,
        max_micro_batch=-(-train.global_batch // cluster.ranks),
    )


def _stage_memory(
    config: PretrainConfig, cluster: Cluster, stage: int, batch: BatchLayout, device_bytes: float
) -> StageMemory:
    """The memory of a GPU at a ZeRO stage, and whether it fits into `device_bytes`."""
    train = config.train
    memory = peak_memory(
        config.model,
        ranks=cluster.ranks,
        zero_stage=stage,
        micro_batch=batch.micro,
        precision=train.precision,
        activation_checkpointing=train.activation_checkpointing,
        offload_optimizer=train.offload_optimizer,
        passes=batch.accumulation,
    )
    return StageMemory(
        stage=stage,
        memory=memory,
        fits=memory.total <= device_bytes,
        largest_micro_batch=_largest_micro_batch(config, cluster, stage, device_bytes),
    )


def _checkpoints(config: PretrainConfig, steps: int, step_s: float) -> PlannedCheckpoints:
    """Number and sizes of the checkpoints: weights in fp32, and training state."""
    settings = config.checkpoint
    count = -(-steps // settings.every_steps)
    states = min(count, settings.keep_last)
    if settings.keep_every_steps:
        # A save on a multiple of keep_every_steps keeps its state.
        states = min(count, states + steps // math.lcm(settings.every_steps, settings.keep_every_steps))
    tokens = model_shapes.token_counts(config.model)
    widths = model_shapes.encoder_shape(config.model.name).width + config.model.decoder_width
    # Positions are fixed, so they are not parameters. They are saved with the weights.
    fixed = (tokens.patches + 1) * widths
    trained = model_shapes.parameter_count(config.model)
    state = model_shapes.state_bytes(config.model, config.train.precision)
    return PlannedCheckpoints(
        count, 4.0 * (trained + fixed), float(state), states, settings.every_steps * step_s
    )


def _memory_findings(train: Train, cluster: Cluster, chosen: StageMemory) -> list[Finding]:
    """A serious risk where the run does not fit into the memory of a GPU."""
    if chosen.fits:
        return []
    needed_gb = chosen.memory.total / 1e9
    if chosen.largest_micro_batch:
        remedy = (
            f"train.micro_batch={chosen.largest_micro_batch} (the global batch stays the same), or 'auto'"
        )
    else:
        remedy = (
            "a higher train.zero_stage, more GPUs, train.activation_checkpointing or offload_optimizer=true"
        )
    return [
        Finding(
            "serious",
            "train.micro_batch",
            f"ZeRO {chosen.stage} with this micro-batch needs about {needed_gb:.1f} GB of a GPU's "
            f"{cluster.device.memory_gb:g} GB",
            "The run would run out of memory at its first step",
            "retfound_dist/estimate/gpu_memory.py",
            remedy,
        )
    ]


def _grace_findings(train: Train, graces: Sequence[Grace], save_time: SaveTime) -> list[Finding]:
    """A warning for each scheduler that would kill the run before its save ends."""
    all_graces = [
        Grace(train.grace_s, "train.grace_s", "a higher train.grace_s, or more hosts"),
        *graces,
    ]
    takes = f"a save takes about {save_time.seconds:.2g} s ({save_time.source})"
    return [
        Finding(
            "warning",
            "train.grace_s",
            f"{takes}, but {grace.source} allows {grace.seconds:g} s",
            "The steps since the last checkpoint would be lost",
            "retfound_dist/estimate/save_time.py",
            grace.remedy,
        )
        for grace in insufficient_graces(all_graces, save_time)
    ]


def has_serious(findings: Sequence[Finding]) -> bool:
    """Whether there is a serious risk, with which `--strict` exits with 1."""
    return any(finding.level == "serious" for finding in findings)
