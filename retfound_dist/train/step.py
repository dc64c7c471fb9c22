"""One optimizer step of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train import engine as ds
from retfound_dist.train.account import Account
from retfound_dist.train.anomaly import StepRecord
from retfound_dist.train.group import Group
from retfound_dist.train.job import Job
from retfound_dist.train.telemetry import Clock


def take_step(
    engine: Any,
    batches: Iterator[MicroBatch],
    job: Job,
    group: Group,
    clock: Clock,
    account: Account,
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
