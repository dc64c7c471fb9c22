"""One optimizer step of one rank."""

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


def take_step(
    engine: Any,
    batches: Iterator[MicroBatch],
    job: RunSchedule,
    group: RankGroup,
    clock: Clock,
    account: SampleFaults,
    done: int,
) -> StepRecord:
    """Every micro-batch forward and backward, then the weights move; `done`: the steps before this one."""
    ds.set_lr(engine, job.lr(done))
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
        engine.backward(losses.sum() * scale)  # DeepSpeed takes the mean over ranks and passes
        norm = ds.step(engine)
        record.grad_norm = record.grad_norm if norm is None else norm
        record.loss += losses.detach().sum()
        record.digest += part.digest
        record.keys += part.keys
        record.losses.append(losses.detach()[: len(part.keys)])
        account.take(part)
    clock.steps += 1
    return record
