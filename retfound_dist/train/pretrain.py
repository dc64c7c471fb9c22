"""The run: shards in, committed checkpoints out. Sets up what `loop.py` runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from retfound_dist import commit, runlog
from retfound_dist import config as configs
from retfound_dist.errors import DataError, RetfoundError
from retfound_dist.heldout import held_out_part
from retfound_dist.model.compiled import compile_model, should_compile
from retfound_dist.model.cpu import suit_cpu
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights import load_into, read_weights
from retfound_dist.schema import PretrainConfig
from retfound_dist.scratch import Scratch
from retfound_dist.shardset import Manifest
from retfound_dist.stream.loader import make_plan, open_stream
from retfound_dist.train import engine as ds
from retfound_dist.train import restore
from retfound_dist.train.anomaly import Anomalies
from retfound_dist.train.checkpoint import Saver
from retfound_dist.train.fit import find_micro_batch, give_back
from retfound_dist.train.group import Group
from retfound_dist.train.heldout import open_held_out
from retfound_dist.train.job import make_job, run_steps
from retfound_dist.train.journal import Journal
from retfound_dist.train.keeper import Keeper
from retfound_dist.train.lock import RunLock
from retfound_dist.train.loop import Desk, Loop
from retfound_dist.train.optim import parameter_groups
from retfound_dist.train.preempt import StopRequest
from retfound_dist.train.telemetry import Display, process_began
from retfound_dist.train.trace import TensorBoard
from retfound_dist.train.watchdog import Watchdog, want_no_other_start
from retfound_dist.versions import installed
from retfound_dist.world import World

HURRY_S = 5.0
"""How long logs and lock of a run that fails may take to be written."""


@dataclass(frozen=True)
class Start:
    """One start of a run on one rank: what its parts share."""

    config: PretrainConfig
    tree: dict[str, Any]
    """The config as plain values."""
    manifest: Manifest
    group: Group
    display: Display
    keeper: Keeper
    asked: StopRequest
    watchdog: Watchdog
    scratch: str
    """A folder that the ranks of this host share."""


def pretrain(config: PretrainConfig, manifest: Manifest, world: World, quiet: bool = False) -> int:
    """Run or resume; gives the exit code. Every rank of `world` calls it."""
    asked, watchdog = StopRequest(config.train.max_minutes), Watchdog(world, config.train.hang_minutes)
    watchdog.start()
    tree, url = configs.to_dict(config), config.run.url
    known = runlog.check_same_run(url, tree)
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    steps = run_steps(config, plan)
    with Display(steps, shown=world.is_main and not quiet) as display, Scratch("run", world.owner) as scratch:
        if known and commit.list_steps(url)[-1:] == [steps]:
            display.say(f"{url} has reached its last step, {steps}: nothing to do")
            return 0
        group = ds.start(world, config.train.threads)
        keeper = Keeper(url)
        start = Start(config, tree, manifest, group, display, keeper, asked, watchdog, scratch.folder)
        try:
            run_on(start)
        finally:
            ds.stop()
    return 0


def run_on(start: Start) -> None:
    """Run or resume on ranks that have met; every one of them calls it."""
    try:
        with _desk(start) as desk:
            _run(start, desk)
        start.keeper.end()
    except BaseException:
        start.keeper.abandon()
        raise


@contextmanager
def _desk(start: Start) -> Iterator[Desk | None]:
    """The lock and the logs, on rank 0; RunConflictError on every rank when another run holds the lock."""
    config, url, desk, fault = start.config, start.config.run.url, None, None
    if start.group.world.is_main:
        lock = RunLock(url, start.display.say)
        try:
            lock.take()
            runlog.write_config(url, start.tree)
            board = TensorBoard(url, start.keeper, start.scratch) if config.train.tensorboard else None
            desk = Desk(Journal(url, start.keeper, config.checkpoint.patience_s), lock, board)
        except RetfoundError as error:
            lock.release()
            fault = error
    if fault := start.group.share(fault):
        raise fault
    try:
        yield desk
    except BaseException:
        if desk:  # torchrun ends this rank half a minute after the first that has left
            desk.journal.close(longest_s=HURRY_S)
            leaving = threading.Thread(target=desk.lock.release, daemon=True)
            leaving.start()
            leaving.join(HURRY_S)
        raise
    if desk:
        if desk.board:
            desk.board.close()
        if why := desk.journal.close():
            start.display.warn(f"the last lines of the run's logs could not be written: {why}")
        desk.lock.release()


def _run(begin: Start, desk: Desk | None) -> None:
    config, manifest, group, display = begin.config, begin.manifest, begin.group, begin.display
    train, url, world = config.train, config.run.url, group.world
    held = restore.agree(group, url, display.say, begin.scratch, config.checkpoint.patience_s)
    model = _model(config, display, resumed=held is not None)
    stage = ds.zero_stage(train, world.size)
    micro = train.micro_batch
    if not torch.cuda.is_available():
        suit_cpu(model, train.precision)
    fixed = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    model.to(group.device, torch.bfloat16 if train.precision == "bf16" else torch.float32)
    if should_compile(train.compile, group.device, stage):
        compile_model(model)
    if micro == "auto":
        fit = find_micro_batch(model, train, stage, 3 if manifest.image.get("colour") else 1, group)
        display.say(fit.describe())
        micro = fit.micro
    job = make_job(config, manifest, world.size, micro)
    universal = held is not None and restore.needs_conversion(held, world.size, stage)
    groups = parameter_groups(model, config.optim)
    engine = ds.build(model, groups, train, config.optim, job.cut, universal)
    give_back()
    began, start = time.perf_counter(), 0
    if held is not None:
        how = f"written by {held.world_size} ranks at ZeRO {held.zero_stage}, converted"
        display.say(f"resuming at step {held.step} ({how if universal else 'as it is'})")
        restore.restore(group, engine, held, stage, config.checkpoint.patience_s, begin.scratch)
        start = held.step
    load_s = time.perf_counter() - began
    display.say(
        f"{job.plan.samples} images, {job.steps} steps of {job.cut.describe()}; "
        f"ZeRO {stage}{' (0 runs as 1)' * (train.zero_stage == 0)}, {train.precision}; run {url}"
    )
    held_out = open_held_out(config, manifest, group, job.cut.micro, model.patches)
    if held_out:
        display.say(f"held out: {held_out.count} images of {held_out_part(config.data, manifest)!r}")
    begin.asked.listen()
    journal = desk.journal if desk else None
    at_ease = partial(begin.watchdog.paused, config.checkpoint.patience_s)
    saver = Saver(
        group, begin.keeper, journal, url, config.checkpoint, begin.tree, begin.scratch, fixed, start, at_ease
    )
    before = group.share(_before(url, start) if world.is_main else None)
    loop = Loop(
        job,
        group,
        engine,
        model,
        display,
        saver,
        Anomalies(train.bad_step_budget, train.global_batch, before["anomalies"]),
        begin.asked,
        begin.watchdog,
        desk,
        before["useful_s"],
        before["began"],
        held_out,
    )
    if journal:
        journal.event(
            "start",
            began=process_began(),
            ready=time.time(),
            load_s=load_s,
            step=start,
            world_size=world.size,
            zero_stage=stage,
            cut=job.cut.describe(),
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            versions=installed("retfound-dist", "torch", "deepspeed"),
        )
    with open_stream(
        manifest,
        train.global_batch,
        micro_batch=micro,
        image_size=config.model.image_size,
        patches=model.patches,
        seed=train.seed,
        world=world,
        start_step=start,
        stop_step=job.last,
        data=config.data,
    ) as stream:
        done = loop.run(stream, start)
    saver.close()
    if journal:
        journal.event("end", step=done, reason="finished" if done == job.steps else "stopped")
    ended = "finished" if done == job.steps else "stopped as asked" if done < job.last else "stopped"
    display.say(f"{ended} at step {done} of {job.steps}; checkpoint {commit.checkpoint_url(url, done)}")


def _before(url: str, start: int) -> dict[str, Any]:
    """What earlier starts of the run left: anomalies, time of the steps that count, when it all began."""
    rows = [row for row in runlog.read_metrics(url) if row["step"] <= start]
    steps = [0, *(row["step"] for row in rows)]
    useful = sum(
        (step - last) * row["step_s"] for row, step, last in zip(rows, steps[1:], steps, strict=False)
    )
    starts = [row["began"] for row in runlog.read_rows(url, runlog.EVENTS) if row["event"] == "start"]
    anomalies = [row for row in runlog.read_rows(url, runlog.ANOMALIES) if row["step"] <= start]
    return {"anomalies": anomalies, "useful_s": useful, "began": min([*starts, process_began()])}


def _model(config: PretrainConfig, display: Display, resumed: bool) -> MaskedAutoencoder:
    """The autoencoder with its first weights: the same on every rank."""
    torch.manual_seed(config.train.seed)
    model = MaskedAutoencoder(config.model, config.train.activation_checkpointing)
    if config.model.init != "none" and not resumed:
        weights = read_weights(config.model.init)
        display.say(load_into(model, weights, model.grid).summary(weights.origin))
    return model


def guarded(config: PretrainConfig, manifest: Manifest, world: World, quiet: bool) -> int:
    """`pretrain`, where of an error that all ranks share only rank 0 speaks."""
    try:
        return pretrain(config, manifest, world, quiet)
    except RetfoundError as error:
        want_no_other_start()
        if not world.is_main and not isinstance(error, DataError):
            os._exit(error.exit_code)
        raise
