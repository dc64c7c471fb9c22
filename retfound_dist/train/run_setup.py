"""Prepares a start before its run is written to: checkpoint, model, micro-batch, engine, held-out part.

A first start that names something wrong (weights, a model, a batch) ends here, and leaves no run behind.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import RunConflictError
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.formats.content_identity import INIT_WEIGHTS
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.compilation import compile_model, should_compile
from retfound_dist.model.cpu_bf16 import choose_cpu_operators
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from retfound_dist.stream.held_out_part import held_out_part
from retfound_dist.train.checkpoint import restore
from retfound_dist.train.checkpoint.resume import FROM_THE_BEGINNING, ResumePoint, choose_checkpoint, job_of
from retfound_dist.train.engine import deepspeed_engine as ds
from retfound_dist.train.engine.micro_batch import find_micro_batch, release_freed_memory
from retfound_dist.train.held_out_loss import HeldOut, open_held_out
from retfound_dist.train.logs.telemetry import TrainingDisplay
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.rank_failures import RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog
from retfound_dist.train.schedule import RunSchedule, make_schedule


@dataclass(frozen=True)
class RunContext:
    """What the parts of one start of a run share on one rank."""

    config: PretrainConfig
    tree: dict[str, Any]
    """The config as plain values and, on rank 0, `NON_SETTINGS`: shard set and first weights by content."""
    manifest: Manifest
    group: RankGroup
    display: TrainingDisplay
    uploads: UploadProcess
    """Writes to the run's store."""
    asked: StopRequest
    watchdog: Watchdog
    scratch: str
    """A folder that the ranks of this host share."""
    failures: RankFailures


class StoppedError(Exception):
    """All ranks leave before the first step, because one of them was asked to stop."""


@dataclass(frozen=True)
class ReadyRun:
    """Everything that the first step needs, at the step where the run stands."""

    job: RunSchedule
    model: MaskedAutoencoder
    engine: Any
    untrained: dict[str, Tensor]
    """Tensors that are not trained, in fp32; only rank 0's are right."""
    held_out: HeldOut | None
    stage: int
    """ZeRO's, as it runs."""
    step: int = 0
    """Steps done."""
    load_s: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    """What the run itself remembered with its checkpoint."""
    resume_point: ResumePoint = FROM_THE_BEGINNING
    """The checkpoint that it goes on from."""


def stop_if_asked(context: RunContext) -> None:
    """StoppedError on every rank where any was asked to stop during the set-up; every rank calls it."""
    # Not `asked.asked`: a time limit that has passed already is left to the loop, which takes one step.
    if any(context.group.gather(context.asked.asked_at > 0)):
        context.asked.ignore()
        context.display.say("stopped as asked before the first step of this start: nothing new to save")
        raise StoppedError


def prepare_run(context: RunContext) -> ReadyRun:
    """Read all that the config names and bring it to the step where the run stands; every rank calls it."""
    config, manifest, group, display = context.config, context.manifest, context.group, context.display
    train, world = config.train, group.world
    resume_point = group.on_main(lambda: _choose_checkpoint(context))
    commit = resume_point.held
    # Between the slow parts of the set-up: choosing reads every file of a checkpoint, building a model its
    # weights.
    stop_if_asked(context)
    model = _build_model(context, commit)
    stage, micro = ds.zero_stage(train, world.size), train.micro_batch
    if not torch.cuda.is_available():
        choose_cpu_operators(model, train.precision)
    # Copied while the model is still in fp32: in bf16 positions are rounded, and a save would commit the
    # rounded ones.
    untrained = {name: tensor.detach().clone() for name, tensor in restore.untrained(model).items()}
    model.to(group.device, torch.bfloat16 if train.precision == "bf16" else torch.float32)
    group.broadcast_model(model)
    if should_compile(train.compile, group.device, stage):
        compile_model(model)
    stop_if_asked(context)
    # Before DeepSpeed wraps the model, for its configuration holds the micro-batch. What DeepSpeed will take
    # is added as predicted.
    if micro == "auto":
        fit = find_micro_batch(model, train, stage, 3 if manifest.image.get("colour") else 1, group)
        display.say(fit.describe())
        micro = fit.micro
    job = make_schedule(config, manifest, world.size, micro)
    universal = commit is not None and restore.needs_conversion(commit, world.size, stage)
    # DeepSpeed has to know before it wraps the model in which of its two formats the state will be loaded.
    engine = ds.build(model, parameter_groups(model, config.optim), train, config.optim, job.cut, universal)
    release_freed_memory()
    began, state = time.perf_counter(), {}
    if commit is not None:
        origin = f"written by {commit.world_size} ranks at ZeRO {commit.zero_stage}, converted"
        display.say(f"resuming at step {commit.step} ({origin if universal else 'as it is'})")
        state = restore.restore(group, engine, commit, stage, config.checkpoint.patience_s, context.scratch)
    load_s = time.perf_counter() - began
    display.say(
        f"{job.plan.samples} images, {job.steps} steps of {job.cut.describe()}; "
        f"ZeRO {stage}{' (0 runs as 1)' * (train.zero_stage == 0)}, {train.precision}; run {config.run.url}"
    )
    held_out = open_held_out(config, manifest, group, job.cut.micro, model.patches)
    if held_out:
        display.say(f"held out: {held_out.count} images of {held_out_part(config.data, manifest)!r}")
    step = commit.step if commit else 0
    return ReadyRun(job, model, engine, untrained, held_out, stage, step, load_s, state, resume_point)


def _choose_checkpoint(context: RunContext) -> ResumePoint:
    config, job = context.config, job_of(os.environ, context.group.world.launcher)
    return choose_checkpoint(
        config.run.url, config.run.resume, context.display.say, config.checkpoint.patience_s, job
    )


def _build_model(context: RunContext, commit: Commit | None) -> MaskedAutoencoder:
    """The autoencoder in fp32, with weights drawn by the seed.

    Rank 0 then fills in `model.init`; on a resume, what the checkpoint holds and DeepSpeed's state lacks.
    """
    config = context.config
    torch.manual_seed(config.train.seed)
    model = MaskedAutoencoder(config.model, config.train.activation_checkpointing)

    def fill() -> str:
        if commit is not None:
            return restore.read_untrained(model, commit, context.scratch)
        if config.model.init == "none":
            return ""
        weights = read_weights(config.model.init)
        # A start that was killed before its first checkpoint has written down what it began from. Were it
        # begun again from other weights, its config and its log would tell of two runs.
        known = context.tree.setdefault(INIT_WEIGHTS, {"sha256": weights.sha256})
        if known["sha256"] != weights.sha256:
            raise RunConflictError(
                f"{config.model.init} holds other weights than {config.run.url} began from: "
                "bring those back, or start at a run.url of its own"
            )
        return load_into(model, weights, model.grid).summary(weights)

    # Only rank 0 reads weights; `broadcast_model` brings them to the others over the network, not the store.
    if summary := context.group.on_main(fill):
        context.display.say(summary)
    return model
