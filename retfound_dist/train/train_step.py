"""One optimizer step of one rank: passes forward and backward over its share of a global batch, then AdamW.

Every rank computes `accumulation` passes of `micro` samples. `trainer.py` calls this once a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train.engine import deepspeed_engine as ds
from retfound_dist.train.health.anomalies import StepRecord
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.logs.telemetry import Clock
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.schedule import RunSchedule


def train_step(
    engine: Any,
    batches: Iterator[MicroBatch],
    job: RunSchedule,
    group: RankGroup,
    clock: Clock,
    sample_faults: SampleFaults,
    done: int,
) -> StepRecord:
    """Run every micro-batch of a step forward and backward and move the weights.

    `done`: steps before this one. Gives what `Anomalies.summarize` needs of the step; nothing here waits for
    the device.
    """
    ds.set_lr(engine, job.lr(done))
    # DeepSpeed divides the gradient by ranks and passes. Times this factor, it is the mean over exactly the
    # global batch, however many samples of weight 0 pad it.
    scale = group.world.size * job.cut.accumulation / job.cut.global_batch
    nothing = torch.zeros((), device=group.device, dtype=torch.float64)
    record = StepRecord(done + 1, nothing, nothing.clone(), digest=0)
    for _ in range(job.cut.accumulation):
        with clock.waiting():
            part = next(batches)
        images, noise, weight = (
            t.to(group.device, non_blocking=True) for t in (part.images, part.noise, part.weight)
        )
        with clock.forward():
            losses = engine(images, noise) * weight
        engine.backward(losses.sum() * scale)
        norm = ds.step(engine)  # moves the weights in the last pass only, which alone gives a norm
        record.grad_norm = record.grad_norm if norm is None else norm
        # Losses stay on the device until a step is logged: `item()` here would wait for the device in every
        # pass.
        record.loss += losses.detach().sum()
        record.digest += part.digest
        record.keys += part.keys
        record.losses.append(losses.detach()[: len(part.keys)])
        sample_faults.add(part)
    clock.steps += 1
    return record
