"""Prepares everything for the first step: checkpoint, model, micro-batch, engine, held-out images.

Nothing is written to the run yet. So a first start with a wrong setting leaves no run behind.
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
from retfound_dist.model.devices import device_name
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from retfound_dist.runtime.humanize import plural
from retfound_dist.runtime.progress import ProgressDisplay
from retfound_dist.stream.held_out_part import held_out_part
from retfound_dist.train.checkpoint import restore
from retfound_dist.train.checkpoint.resume import FROM_THE_BEGINNING, ResumePoint, choose_checkpoint, read_job
from retfound_dist.train.engine.engine_choice import choose_zero_stage, make_engine
from retfound_dist.train.engine.host_copies import allocate_exact_sizes
from retfound_dist.train.engine.memory_meter import release_freed_memory
from retfound_dist.train.engine.micro_batch import find_micro_batch
from retfound_dist.train.engine.training_engine import TrainingEngine
from retfound_dist.train.held_out_loss import HeldOut, read_held_out
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.process_group import collective_timeout, set_group_timeouts
from retfound_dist.train.ranks.rank_failures import RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog
from retfound_dist.train.schedule import RunSchedule, make_schedule


@dataclass(frozen=True)
class RunContext:
    """Shared by all parts of one start of a run, on one rank."""

    config: PretrainConfig
    config_tree: dict[str, Any]
    """The config as plain values, with `NON_SETTINGS`: the contents of shard set and first weights."""
    manifest: Manifest
    group: RankGroup
    display: ProgressDisplay
    uploads: UploadProcess
    """It writes to the run's store."""
    stop_request: StopRequest
    watchdog: Watchdog
    scratch: str
    """A local folder that the ranks of this host share."""
    failures: RankFailures


class StoppedError(Exception):
    """One rank was asked to stop before the first step, so all of them leave."""


@dataclass(frozen=True)
class ReadyRun:
    """Everything that the first step of this start needs."""

    schedule: RunSchedule
    model: MaskedAutoencoder
    engine: TrainingEngine
    untrained: dict[str, Tensor]
    """Tensors that are not trained, in fp32; only rank 0's are complete."""
    held_out: HeldOut | None
    zero_stage: int
    """The stage that really runs."""
    step: int = 0
    """Steps done."""
    load_s: float = 0.0
    run_state: dict[str, Any] = field(default_factory=dict)
    """`Trainer.state` of the checkpoint."""
    resume_point: ResumePoint = FROM_THE_BEGINNING


def stop_if_requested(context: RunContext) -> None:
    """StoppedError on every rank if any was asked to stop during the set-up; every rank calls it."""
    # Not `stop_request.requested`: if the time limit is over already, the loop still takes one step.
    if any(context.group.gather(context.stop_request.requested_at > 0)):
        context.stop_request.ignore_signals()
        context.display.say("stopped as asked before the first step of this start: nothing new to save")
        raise StoppedError


def prepare_run(context: RunContext) -> ReadyRun:
    """Read everything that the config names, and resume from a checkpoint; every rank calls it."""
    config, group, display, train = context.config, context.group, context.display, context.config.train
    resume_point = group.run_on_main(lambda: _choose_checkpoint(context))
    commit = resume_point.commit
    # Between the slow parts: choosing reads every file of a checkpoint, building a model reads its weights.
    stop_if_requested(context)
    model = _build_model(context, commit)
    if group.device.type == "cpu":
        choose_cpu_operators(model, train.precision)
    # Copied while the model is still in fp32: bf16 rounds the positions, and a save must not commit those.
    untrained = {name: tensor.detach().clone() for name, tensor in restore.untrained(model).items()}
    if group.device.type == "cuda":
        allocate_exact_sizes()
    model.to(group.device, torch.bfloat16 if train.precision == "bf16" else torch.float32)
    group.broadcast_model(model)
    zero_stage = choose_zero_stage(train, group.world.size)
    is_compiled = should_compile(train.compile, group.device, zero_stage)
    stop_if_requested(context)
    # Before DeepSpeed wraps the model, because its configuration contains the micro-batch. And before the
    # model is compiled: each size that is tried would be compiled for a minute, and torch (2.15) refuses the
    # ninth. A compiled pass needs less memory than the plain one that is measured (docs/model.md).
    micro_batch = _choose_micro_batch(context, model, zero_stage)
    if is_compiled:
        compile_model(model)
    schedule = make_schedule(config, context.manifest, group.world.size, micro_batch)
    convert = commit is not None and restore.needs_conversion(commit, group.world.size, zero_stage)
    # Before it wraps the model, DeepSpeed has to know in which of its two formats the state will be loaded.
    groups = parameter_groups(model, config.optim)
    engine = make_engine(model, groups, train, config.optim, schedule.layout, convert)
    set_group_timeouts(collective_timeout(train.hang_minutes, config.checkpoint.patience_s))
    release_freed_memory()
    began, run_state = time.perf_counter(), {}
    if commit is not None:
        origin = f"written by {commit.world_size} ranks at ZeRO {commit.zero_stage}, converted"
        display.say(f"resuming at step {commit.step} ({origin if convert else 'as it is'})")
        run_state = restore.restore(
            group, engine, commit, zero_stage, config.checkpoint.patience_s, context.scratch
        )
    load_s = time.perf_counter() - began
    loaders = plural(int(config.data.workers), "loader process")
    display.say(
        f"{schedule.plan.samples} images, {schedule.steps} steps of {schedule.layout.describe()}; ZeRO "
        f"{zero_stage}{' (0 runs as 1)' * (train.zero_stage == 0)}, {train.precision}, on "
        f"{device_name(group.device)}, {'compiled' if is_compiled else 'not compiled'}, {loaders} a rank; "
        f"run {config.run.url}"
    )
    return ReadyRun(
        schedule=schedule,
        model=model,
        engine=engine,
        untrained=untrained,
        held_out=_read_held_out(context, schedule.layout.micro, model.patches),
        zero_stage=zero_stage,
        step=commit.step if commit else 0,
        load_s=load_s,
        run_state=run_state,
        resume_point=resume_point,
    )


def _choose_checkpoint(context: RunContext) -> ResumePoint:
    """Where this start begins, as `run.resume` says: at a checkpoint, or at step 0."""
    # The job is needed because Slurm and torchrun restart a job with the same command: `run.resume=none` must
    # count only at its first start.
    config, job = context.config, read_job(os.environ, context.group.world.launcher)
    return choose_checkpoint(
        config.run.url, config.run.resume, context.display.say, config.checkpoint.patience_s, job
    )


def _choose_micro_batch(context: RunContext, model: MaskedAutoencoder, zero_stage: int) -> int:
    """`train.micro_batch`, or the largest that fits in the memory of every rank."""
    train = context.config.train
    if train.micro_batch != "auto":
        return train.micro_batch
    channels = 3 if context.manifest.image.get("colour") else 1
    fit = find_micro_batch(model, train, zero_stage, channels, context.group)
    context.display.say(fit.describe())
    return fit.micro


def _read_held_out(context: RunContext, micro_batch: int, patches: int) -> HeldOut | None:
    config, manifest = context.config, context.manifest
    held_out = read_held_out(config, manifest, context.group, micro_batch, patches)
    if held_out:
        part = held_out_part(config.data, manifest)
        context.display.say(f"held out: {held_out.count} images of {part!r}")
    return held_out


def _build_model(context: RunContext, commit: Commit | None) -> MaskedAutoencoder:
    """The autoencoder in fp32, with random weights from the seed.

    Rank 0 then loads `model.init`, or, on a resume, the tensors that DeepSpeed's state does not contain.
    """
    config = context.config
    torch.manual_seed(config.train.seed)
    model = MaskedAutoencoder(config.model, config.train.activation_checkpointing)

    def load_weights() -> str:
        """Load these tensors, if any; returns a line on what was loaded, or an empty text."""
        if commit is not None:
            return restore.read_untrained(model, commit, context.scratch)
        if config.model.init == "none":
            return ""
        weights = read_weights(config.model.init)
        # A start that was killed before its first checkpoint has recorded its first weights. If the run began
        # again from others, its config and log would describe two different runs.
        known = context.config_tree.setdefault(INIT_WEIGHTS, {"sha256": weights.sha256})
        if known["sha256"] != weights.sha256:
            raise RunConflictError(
                f"{config.model.init} holds other weights than {config.run.url} began from: "
                "restore those, or use another run.url"
            )
        return load_into(model, weights, model.grid).summary(weights)

    # Only rank 0 reads weights. `broadcast_model` sends them to the others over the network, not the store.
    if summary := context.group.run_on_main(load_weights):
        context.display.say(summary)
    return model
