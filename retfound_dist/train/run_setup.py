"""What a start reads and makes before it writes to its run: model, batch, engine, held-out part.

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
from retfound_dist.model.cpu_bf16 import suit_cpu
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from retfound_dist.stream.held_out_part import held_out_part
from retfound_dist.train.checkpoint import restore
from retfound_dist.train.checkpoint.resume import FROM_THE_BEGINNING, ResumePoint, choose, job_of
from retfound_dist.train.engine import deepspeed_engine as ds
from retfound_dist.train.engine.micro_batch import find_micro_batch, give_back
from retfound_dist.train.held_out_loss import HeldOut, open_held_out
from retfound_dist.train.logs.telemetry import TrainingDisplay
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.rank_failures import RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog
from retfound_dist.train.schedule import RunSchedule, make_job


@dataclass(frozen=True)
class RunContext:
    """One start of a run on one rank: what its parts share."""

    config: PretrainConfig
    tree: dict[str, Any]
    """The config as plain values and, on rank 0, `identity.KEPT`: shard set and first weights by content."""
    manifest: Manifest
    group: RankGroup
    display: TrainingDisplay
    keeper: UploadProcess
    asked: StopRequest
    watchdog: Watchdog
    scratch: str
    """A folder that the ranks of this host share."""
    failures: RankFailures


class StoppedError(Exception):
    """All ranks leave, as was asked of one of them, before the first step."""


@dataclass(frozen=True)
class ReadyRun:
    """Everything that the first step needs, at the step where the run stands."""

    job: RunSchedule
    model: MaskedAutoencoder
    engine: Any
    fixed: dict[str, Tensor]
    """What is not trained, in fp32; rank 0's is right."""
    held_out: HeldOut | None
    stage: int
    """ZeRO's, as it runs."""
    step: int = 0
    """Steps done."""
    load_s: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    """What the run itself remembered with its checkpoint."""
    choice: ResumePoint = FROM_THE_BEGINNING
    """Why it stands there."""


def stop_if_asked(begin: RunContext) -> None:
    """StoppedError on every rank where any was asked to stop while they set up; every rank calls it."""
    if any(begin.group.gather(begin.asked.asked_at > 0)):
        begin.asked.ignore()
        begin.display.say("stopped as asked before the first step of this start: nothing new to save")
        raise StoppedError


def make_ready(begin: RunContext) -> ReadyRun:
    """Read all that the config names and bring it to where the run stands; every rank calls it."""
    config, manifest, group, display = begin.config, begin.manifest, begin.group, begin.display
    train, world = config.train, group.world
    choice = group.on_main(lambda: _choose(begin))
    held = choice.held
    stop_if_asked(begin)
    model = _model(begin, held)
    stage, micro = ds.zero_stage(train, world.size), train.micro_batch
    if not torch.cuda.is_available():
        suit_cpu(model, train.precision)
    fixed = {name: tensor.detach().clone() for name, tensor in restore.untrained(model).items()}
    model.to(group.device, torch.bfloat16 if train.precision == "bf16" else torch.float32)
    group.spread(model)
    if should_compile(train.compile, group.device, stage):
        compile_model(model)
    stop_if_asked(begin)
    if micro == "auto":
        fit = find_micro_batch(model, train, stage, 3 if manifest.image.get("colour") else 1, group)
        display.say(fit.describe())
        micro = fit.micro
    job = make_job(config, manifest, world.size, micro)
    universal = held is not None and restore.needs_conversion(held, world.size, stage)
    engine = ds.build(model, parameter_groups(model, config.optim), train, config.optim, job.cut, universal)
    give_back()
    began, state = time.perf_counter(), {}
    if held is not None:
        how = f"written by {held.world_size} ranks at ZeRO {held.zero_stage}, converted"
        display.say(f"resuming at step {held.step} ({how if universal else 'as it is'})")
        state = restore.restore(group, engine, held, stage, config.checkpoint.patience_s, begin.scratch)
    load_s = time.perf_counter() - began
    display.say(
        f"{job.plan.samples} images, {job.steps} steps of {job.cut.describe()}; "
        f"ZeRO {stage}{' (0 runs as 1)' * (train.zero_stage == 0)}, {train.precision}; run {config.run.url}"
    )
    held_out = open_held_out(config, manifest, group, job.cut.micro, model.patches)
    if held_out:
        display.say(f"held out: {held_out.count} images of {held_out_part(config.data, manifest)!r}")
    step = held.step if held else 0
    return ReadyRun(job, model, engine, fixed, held_out, stage, step, load_s, state, choice)


def _choose(begin: RunContext) -> ResumePoint:
    config, job = begin.config, job_of(os.environ, begin.group.world.launcher)
    return choose(config.run.url, config.run.resume, begin.display.say, config.checkpoint.patience_s, job)


def _model(begin: RunContext, held: Commit | None) -> MaskedAutoencoder:
    """The autoencoder in fp32, begun by the seed, then filled on rank 0: by `model.init`, or on a resume with
    what the checkpoint holds and DeepSpeed's state does not."""
    config = begin.config
    torch.manual_seed(config.train.seed)
    model = MaskedAutoencoder(config.model, config.train.activation_checkpointing)

    def fill() -> str:
        if held is not None:
            return restore.read_untrained(model, held, begin.scratch)
        if config.model.init == "none":
            return ""
        weights = read_weights(config.model.init)
        known = begin.tree.setdefault(INIT_WEIGHTS, {"sha256": weights.sha256})
        if known["sha256"] != weights.sha256:
            raise RunConflictError(
                f"{config.model.init} holds other weights than {config.run.url} began from: "
                "bring those back, or start at a run.url of its own"
            )
        return load_into(model, weights, model.grid).summary(weights)

    if said := begin.group.on_main(fill):
        begin.display.say(said)
    return model
