"""Predicts the speed of a run: the step of `forecast.py`, with the rate of a GPU as measured or assumed."""

from __future__ import annotations

from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.estimate import model_shapes
from retfound_dist.plan.cluster import ASSUMED_EFFICIENCY, LAUNCH_S, LOW_EFFICIENCY, OVERLAP, Cluster
from retfound_dist.plan.data_facts import DataFacts
from retfound_dist.plan.forecast import PERSISTENCE_THRESHOLD, Shape, Work, forecast
from retfound_dist.plan.measured_rates import MeasuredRate
from retfound_dist.plan.store_traffic import NodeReads
from retfound_dist.stream.batch_plan import BatchLayout, make_batch_layout


@dataclass(frozen=True)
class Speed:
    """The predicted speed and its source."""

    step_s: float
    images_per_s: float
    images_per_s_needed: float
    """Rate that finishes within the requested hours."""
    store_bytes_per_s: float
    """Bytes per second that each node reads from the store in an epoch without cache."""
    source: str
    """Where the rate of one GPU comes from, for a person."""
    slow_step_s: float | None
    """The same at `LOW_EFFICIENCY`; None where the rate of a GPU was measured."""


def predict_speed(
    config: PretrainConfig,
    data: DataFacts,
    cluster: Cluster,
    batch: BatchLayout,
    stage: int,
    reads: NodeReads,
    rate: MeasuredRate | None,
    images_per_s_needed: float,
) -> Speed:
    """The step time of `forecast.py`, with the rate of one GPU as measured, else from the datasheet."""
    model, device = config.model, cluster.device
    flops = model_shapes.training_flops(model)
    if config.train.activation_checkpointing:
        flops = flops * 4 // 3  # each block's forward pass once more
    sizes = list(model_shapes.parameter_sizes(model))
    small, element = (
        sum(n for n in sizes if n <= PERSISTENCE_THRESHOLD),
        2 if config.train.precision == "bf16" else 4,
    )
    work = Work(sum(sizes), flops, batch.global_batch, small, element, data.bytes / data.samples)
    reached, launch = device.flops * ASSUMED_EFFICIENCY, LAUNCH_S
    source = f"{ASSUMED_EFFICIENCY:.0%} of {device.flops / 1e12:g} TFLOP/s, assumed ({device.source})"
    if rate is not None:
        reached, source = _flops_of_passes(work, cluster, batch, stage, rate), f"measured: {rate.source}"
        # A measured pass includes its launches, so they cannot take longer than the pass.
        launch = min(launch, batch.micro * flops / reached)
    shape = Shape(cluster.ranks, batch.micro, batch.accumulation, stage)
    step = forecast(work, shape, cluster.machine(reached, launch), OVERLAP, reads.copies)
    slow_step_s = None
    if rate is None:
        slow = cluster.machine(device.flops * LOW_EFFICIENCY, launch)
        slow_step_s = forecast(work, shape, slow, OVERLAP, reads.copies).step_s
    return Speed(
        step.step_s, step.images_per_s, images_per_s_needed, step.store_rate_needed, source, slow_step_s
    )


def _flops_of_passes(
    work: Work, cluster: Cluster, batch: BatchLayout, stage: int, rate: MeasuredRate
) -> float:
    """Operations per second of the passes alone, from the measured rate of whole steps on one device."""
    one_rank = make_batch_layout(batch.global_batch, 1, batch.micro)
    shape = Shape(1, one_rank.micro, one_rank.accumulation, stage)
    one_rank_step = forecast(work, shape, cluster.machine(cluster.device.flops))
    step_s = work.global_batch / rate.images_per_s
    # The predicted overhead may exceed that of the measured machine: then half of the step counts as passes.
    passes_s = max(step_s / 2, step_s - (one_rank_step.step_s - one_rank_step.compute_s))
    return work.global_batch * work.flops_per_image / passes_s
