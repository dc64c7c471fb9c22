"""One optimizer step of one rank: forward and backward passes over its share of a global batch, then AdamW.

Every rank computes `accumulation` passes of `micro` samples. `trainer.py` calls this once a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train.engine.training_engine import TrainingEngine
from retfound_dist.train.health.anomalies import StepRecord
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.logs.telemetry import Clock
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.schedule import RunSchedule


def train_step(
    engine: TrainingEngine,
    micro_batches: Iterator[MicroBatch],
    schedule: RunSchedule,
    group: RankGroup,
    clock: Clock,
    sample_faults: SampleFaults,
    done: int,
) -> StepRecord:
    """Run every micro-batch of a step forward and backward, and update the weights.

    `done`: steps before this one. Returns what `Anomalies.summarize` needs. Nothing here waits for the
    device.
    """
    engine.set_lr(schedule.lr(done))
    layout = schedule.layout
    # DeepSpeed divides the gradient by ranks and passes. With this factor it is the mean over exactly the
    # global batch, however many samples of weight 0 pad it.
    scale = group.world.size * layout.accumulation / layout.global_batch
    zero = torch.zeros((), device=group.device, dtype=torch.float64)
    record = StepRecord(done + 1, loss=zero, grad_norm=zero.clone(), digest=0)
    for _ in range(layout.accumulation):
        with clock.waiting():
            micro_batch = next(micro_batches)
        images, noise, weight = (
            tensor.to(group.device, non_blocking=True)
            for tensor in (micro_batch.images, micro_batch.noise, micro_batch.weight)
        )
        with clock.forward():
            losses = engine(images, noise) * weight
        engine.backward(losses.sum() * scale)
        grad_norm = engine.end_pass()  # updates the weights in the last pass only, which alone returns a norm
        if grad_norm is not None:
            record.grad_norm = grad_norm
        # Losses stay on the device until a step is logged: `item()` would wait for the device in every pass.
        record.loss += losses.detach().sum()
        record.digest += micro_batch.digest
        record.keys += micro_batch.keys
        record.losses.append(losses.detach()[: len(micro_batch.keys)])
        sample_faults.add(micro_batch)
    clock.steps += 1
    return record
