"""The run: shards in, committed checkpoints out. The loop is `_train`; the rest sets it up."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retfound_dist import commit, runlog
from retfound_dist import config as configs
from retfound_dist.errors import DataError, RetfoundError, TrainingError
from retfound_dist.model.cpu import has_bf16_instructions, widen_linears
from retfound_dist.model.flops import matrix_rate, training_flops
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights import load_into, read_weights
from retfound_dist.schema import PretrainConfig
from retfound_dist.shardset import Manifest
from retfound_dist.stream.loader import MicroBatch, make_plan, open_stream
from retfound_dist.stream.plan import Layout, Plan, layout
from retfound_dist.train import checkpoint
from retfound_dist.train import engine as ds
from retfound_dist.train.account import Account
from retfound_dist.train.engine import Group
from retfound_dist.train.optim import lr_at, parameter_groups, peak_lr
from retfound_dist.train.preempt import StopRequest
from retfound_dist.train.telemetry import Clock, Display
from retfound_dist.world import World


@dataclass(frozen=True)
class Job:
    """What does not change while a run runs."""

    config: PretrainConfig
    manifest: Manifest
    plan: Plan
    cut: Layout
    steps: int
    """Length of the schedule."""

    @property
    def last(self) -> int:
        """The step to leave at."""
        return min(self.steps, self.config.train.stop_at_step or self.steps)

    def lr(self, step: int) -> float:
        """The learning rate of a step (0 is the first), by samples seen before it."""
        optim, batch = self.config.optim, self.config.train.global_batch
        warmup, total = optim.warmup_epochs * self.plan.samples, self.steps * batch
        return lr_at(step * batch, total, warmup, peak_lr(optim.base_lr, batch), optim.min_lr)


def make_job(config: PretrainConfig, manifest: Manifest, world_size: int) -> Job:
    """Batch arithmetic and length of a run."""
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    cut = layout(config.train.global_batch, world_size, config.train.micro_batch)
    length = config.train.epochs * plan.samples / config.train.global_batch
    return Job(config, manifest, plan, cut, config.train.steps or max(1, math.ceil(length - 1e-9)))


def pretrain(config: PretrainConfig, manifest: Manifest, world: World, quiet: bool = False) -> int:
    """Run or resume; gives the exit code. Every rank of `world` calls it."""
    job = make_job(config, manifest, world.size)
    tree = configs.to_dict(config)
    known = runlog.check_same_run(config.run.url, tree)
    with Display(job.steps, 0, shown=world.is_main and not quiet) as display:
        if known and commit.list_steps(config.run.url)[-1:] == [job.steps]:
            display.say(f"{config.run.url} has reached its last step, {job.steps}: nothing to do")
            return 0
        group = ds.start(world, config.train.threads)
        try:
            if world.is_main:
                runlog.write_config(config.run.url, tree)
            _run(job, group, display)
        finally:
            ds.stop()
    return 0


def _run(job: Job, group: Group, display: Display) -> None:
    train, url = job.config.train, job.config.run.url
    held = group.share(checkpoint.find(url, display.say) if group.world.is_main else None)
    model = _model(job, display, resumed=held is not None)
    fixed = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    stage = ds.zero_stage(train)
    universal = held is not None and checkpoint.needs_conversion(held, group.world.size, stage)
    groups = parameter_groups(model, job.config.optim)
    engine = ds.build(model.to(group.device), groups, train, job.config.optim, job.cut, universal)
    start = 0
    if held is not None:
        how = (
            f"written by {held.world_size} ranks at ZeRO {held.zero_stage}, converted"
            if universal
            else "as it is"
        )
        display.say(f"resuming at step {held.step} ({how})")
        checkpoint.restore(group, engine, held, stage)
        start = held.step
    display.say(
        f"{job.plan.samples} images, {job.steps} steps of {job.cut.describe()}; "
        f"ZeRO {stage}, {train.precision}; run {url}"
    )
    done = _train(job, group, engine, model, fixed, display, start)
    asked = " as asked" if done < job.last else ""
    display.say(
        f"stopped{asked} at step {done} of {job.steps}; checkpoint {commit.checkpoint_url(url, done)}"
    )


def _model(job: Job, display: Display, resumed: bool) -> MaskedAutoencoder:
    """The autoencoder with its first weights: the same on every rank."""
    torch.manual_seed(job.config.train.seed)
    model = MaskedAutoencoder(job.config.model, job.config.train.activation_checkpointing)
    if job.config.model.init != "none" and not resumed:
        weights = read_weights(job.config.model.init)
        display.say(load_into(model, weights, model.grid).summary(weights.origin))
    if not torch.cuda.is_available() and not has_bf16_instructions():
        widen_linears(model)
    return model


@dataclass(frozen=True)
class Step:
    """What one step of this rank leaves: sums over its own samples."""

    lr: float
    loss: Tensor
    """Sum of the samples' losses, on the device."""
    grad_norm: Tensor | None
    digest: int


def _train(
    job: Job,
    group: Group,
    engine: Any,
    model: MaskedAutoencoder,
    fixed: dict[str, Tensor],
    display: Display,
    start: int,
) -> int:
    """The loop: step, say, save. Gives the last step done."""
    config, world = job.config, group.world
    log = runlog.MetricsLog(config.run.url) if world.is_main else None
    peak_flops = matrix_rate(group.device, _matrix_type(config.train.precision, group)) * world.size
    tree, batch = configs.to_dict(config), config.train.global_batch
    account = Account(config.data.bad_sample_budget)
    asked = StopRequest()
    asked.listen()
    done = start
    with open_stream(
        job.manifest,
        batch,
        micro_batch=config.train.micro_batch,
        image_size=config.model.image_size,
        patches=model.patches,
        seed=config.train.seed,
        world=world,
        start_step=start,
        stop_step=job.last,
        data=config.data,
    ) as stream:
        batches, clock = iter(stream), Clock()
        for number in range(start, job.last):
            step, done = _step(job, group, engine, batches, clock, account, number), number + 1
            leaving = asked.agreed(group) or done == job.last
            saving = leaving or done % config.checkpoint.every_steps == 0
            if not (saving or done % config.train.log_every == 0 or done == start + 1):
                continue
            row = _row(job, group, step, done, clock) | account.settle(group, display)
            row["mfu"] = row["images_per_s"] * training_flops(model) / peak_flops
            display.show(row)
            if log:
                log.write(row)
            if saving:
                at = checkpoint.Position(done, done * batch, row["batch_digest"])
                checkpoint.save(group, engine, fixed, config.run.url, at, tree)
                if world.is_main:
                    checkpoint.prune(config.run.url, config.checkpoint)
                clock = Clock()
            if leaving:
                asked.ignore()
                break
    return done


def _step(
    job: Job,
    group: Group,
    engine: Any,
    batches: Iterator[MicroBatch],
    clock: Clock,
    account: Account,
    number: int,
) -> Step:
    """One step: every micro-batch forward and backward, then the weights move."""
    lr, scale = job.lr(number), group.world.size * job.cut.accumulation / job.cut.global_batch
    ds.set_lr(engine, lr)
    total = torch.zeros((), device=group.device, dtype=torch.float64)
    digest, norm = 0, None
    for _ in range(job.cut.accumulation):
        waited = time.perf_counter()
        part = next(batches)
        clock.data_wait += time.perf_counter() - waited
        images, noise, weight = (
            t.to(group.device, non_blocking=True) for t in (part.images, part.noise, part.weight)
        )
        losses = engine(images, noise) * weight
        engine.backward(losses.sum() * scale)  # DeepSpeed takes the mean over ranks and passes
        norm = ds.step(engine)
        total += losses.detach().sum()
        digest += part.digest
        account.take(part)
    clock.steps += 1
    return Step(lr, total, norm, digest % 2**64)


def _row(job: Job, group: Group, step: Step, done: int, clock: Clock) -> dict[str, Any]:
    """A line of metrics.jsonl; here the ranks and the device are waited for."""
    batch = job.cut.global_batch
    return {
        "step": done,
        "epoch": done * batch / job.plan.samples,
        "samples": done * batch,
        "loss": _finite(group.sum(step.loss).item() / batch, done),
        "lr": step.lr,
        "grad_norm": None if step.grad_norm is None else step.grad_norm.item(),
        **clock.rates(batch),
        "world_size": group.world.size,
        "batch_digest": _sum_digest(group, step.digest),
    }


def _matrix_type(precision: str, group: Group) -> torch.dtype:
    """The type whose matrix rate MFU is held against: on a CPU bf16 products run in fp32."""
    return torch.bfloat16 if precision == "bf16" and group.device.type == "cuda" else torch.float32


def _sum_digest(group: Group, part: int) -> str:
    """The global batch's digest from each rank's: a sum modulo 2^64 (int64 addition wraps)."""
    signed = part - 2**64 if part >= 2**63 else part
    total = group.sum(torch.tensor(signed, dtype=torch.int64, device=group.device)).item()
    return f"{int(total) % 2**64:016x}"


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}: lower optim.base_lr or look at the batch; "
            "the last committed checkpoint is good"
        )
    return loss


def guarded(config: PretrainConfig, manifest: Manifest, world: World, quiet: bool) -> int:
    """`pretrain`, where of an error that all ranks share only rank 0 speaks."""
    try:
        return pretrain(config, manifest, world, quiet)
    except RetfoundError as error:
        if not world.is_main and not isinstance(error, DataError):
            os._exit(error.exit_code)
        raise
