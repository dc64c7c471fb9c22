"""The run: shards in, committed checkpoints out. Sets up what `trainer.py` runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from retfound_dist.config import loading as configs
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import RetfoundError, RunConflictError
from retfound_dist.estimate import model_shapes, save_time
from retfound_dist.estimate.save_time import SaveTime, known_graces
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.content_identity import INIT_WEIGHTS, SHARD_SET, describe_set
from retfound_dist.formats.log_rows import each_step_once, read_log
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.formats.shard_set_counts import check_counts
from retfound_dist.io.scratch import Scratch
from retfound_dist.runtime.versions import installed
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import Stream, make_plan, open_stream
from retfound_dist.train.checkpoint.checkpoint_saver import Saver
from retfound_dist.train.checkpoint.resume import is_finished
from retfound_dist.train.engine import deepspeed_engine as ds
from retfound_dist.train.health.anomalies import Anomalies
from retfound_dist.train.health.run_lock import RunLock
from retfound_dist.train.logs.profiling import TensorBoard
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.logs.telemetry import TrainingDisplay, process_began
from retfound_dist.train.old_run_data import check_old_run
from retfound_dist.train.ranks.preemption import INTERRUPTED, Stage, StopRequest
from retfound_dist.train.ranks.rank_failures import Failure, RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog, ends_alike, settle_another_start
from retfound_dist.train.run_setup import ReadyRun, StoppedError, make_ready, stop_if_asked
from retfound_dist.train.run_setup import RunContext as Start
from retfound_dist.train.schedule import run_steps
from retfound_dist.train.trainer import RankZeroState, Trainer

HURRY_S = 5.0
"""How long logs and lock of a run that fails may take to be written."""


def pretrain(
    config: PretrainConfig,
    manifest: Manifest,
    world: World,
    quiet: bool = False,
    asked: StopRequest | None = None,
    debug: bool = False,
) -> int:
    """Run or resume; gives the exit code. Every rank of `world` calls it; `asked` is listening already."""
    if asked is None:
        asked = StopRequest()
        asked.listen()
    asked.limit(config.train.max_minutes)
    watchdog = Watchdog(world, config.train.hang_minutes)
    watchdog.start()
    url = config.run.url
    tree = {**configs.to_dict(config), SHARD_SET: describe_set(manifest)}
    known = run_folder.check_same_run(url, tree, manifest)
    if begun := run_folder.init_weights(url):
        tree[INIT_WEIGHTS] = begun
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    steps = run_steps(config, plan)
    with (
        TrainingDisplay(steps, shown=world.is_main and not quiet) as display,
        Scratch("run", world.owner) as scratch,
    ):
        if known and is_finished(url, steps, config.run.resume):
            display.say(f"{url} has reached its last step, {steps}: nothing to do")
            return 0
        group = ds.start(world, config.train.threads)
        asked.together(display.warn if world.is_main else None)

        def clear() -> None:
            asked.ignore()
            display.end()

        failures = RankFailures(group, watchdog, clear, debug)
        keeper, folder = UploadProcess(url), scratch.folder
        run_on(Start(config, tree, manifest, group, display, keeper, asked, watchdog, folder, failures))
        ds.stop()  # not after a failure: it would wait for a collective that never ends
    return INTERRUPTED if asked.interrupted else 0


def run_on(start: Start) -> None:
    """Run or resume on ranks that have met; every one of them calls it. Where one of several fails, all end.

    Until all that the config names was read, the lock is all that is written to the run.
    """
    try:
        with _locked(start) as lock:
            _check_data(start)
            ready = make_ready(start)
            with _stream(start, ready) as stream, _desk(start, lock, ready.step) as desk:
                _run(start, ready, stream, desk)
        start.keeper.end()
        start.failures.end()
    except StoppedError:
        start.failures.end()
        start.keeper.abandon()
    except BaseException as error:
        start.failures.leave(error)
        start.keeper.abandon()
        raise


def _check_data(start: Start) -> None:
    """RunConflictError where an old run had other data, or the ranks have read two states of the set.

    ManifestError on every rank where its counts are not those of its indexes.
    """
    config, held = start.config, start.manifest
    start.group.on_main(lambda: check_counts(held.url, held.shards, config.data.patience_s))
    start.group.on_main(lambda: check_old_run(config, start.manifest))
    told = start.group.gather(describe_set(start.manifest))
    if any(each != told[0] for each in told):
        raise RunConflictError(
            f"{config.data.shards} changed while the ranks of {config.run.url} read it: start again when "
            "packing is done"
        )


@contextmanager
def _locked(start: Start) -> Iterator[RunLock | None]:
    """The lock, on rank 0; RunConflictError on every rank when another run holds it."""
    lock = RunLock(start.config.run.url, start.display.say) if start.group.world.is_main else None
    if lock:
        start.failures.at_end.append(lambda _: _let_go(lock))
    start.group.on_main(lambda: lock.take() if lock else None)
    try:
        yield lock
    except StoppedError:
        if lock:
            lock.release()
        raise
    if lock:
        lock.release()


def _let_go(lock: RunLock) -> None:
    """Release the lock of a run that fails; a store that does not answer is not waited for."""
    leaving = threading.Thread(target=lock.release, daemon=True)
    leaving.start()
    leaving.join(HURRY_S)


@contextmanager
def _desk(start: Start, lock: RunLock | None, step: int) -> Iterator[RankZeroState | None]:
    """The run's config and its logs, on rank 0."""
    config, url = start.config, start.config.run.url
    desk: RankZeroState | None = None

    def open_desk() -> None:
        nonlocal desk
        assert lock is not None
        board = TensorBoard(url, start.keeper, start.scratch, step) if config.train.tensorboard else None
        run_folder.write_config(url, start.tree)
        journal = RunLogger(url, start.keeper, config.checkpoint.patience_s)
        desk = RankZeroState(journal, lock, board, known_graces(os.environ))
        start.failures.at_end.append(partial(_write_down, desk.journal))

    start.group.on_main(open_desk)
    yield desk
    if desk:
        if desk.board:
            desk.board.close()
        if why := desk.journal.close():
            start.display.warn(f"the last lines of the run's logs could not be written: {why}")


def _write_down(journal: RunLogger, failures: Sequence[Failure]) -> None:
    """Why the run fails, and the last lines of its logs."""
    for failure in failures:
        journal.event("failed", **failure.facts())
    journal.close(longest_s=HURRY_S)


def _stream(begin: Start, ready: ReadyRun) -> Stream:
    """This rank's batches from where the run stands."""
    config = begin.config
    return open_stream(
        begin.manifest,
        config.train.global_batch,
        micro_batch=ready.job.cut.micro,
        image_size=config.model.image_size,
        patches=ready.model.patches,
        seed=config.train.seed,
        world=begin.group.world,
        start_step=ready.step,
        stop_step=ready.job.last,
        data=config.data,
        counted=True,
    )


def _run(begin: Start, ready: ReadyRun, stream: Stream, desk: RankZeroState | None) -> None:
    config, group, display, job, start = begin.config, begin.group, begin.display, ready.job, ready.step
    train, url, world = config.train, config.run.url, group.world
    stop_if_asked(begin)
    begin.asked.stage = Stage.TRAINING
    journal = desk.journal if desk else None
    saver = Saver(
        group,
        begin.keeper,
        journal,
        url,
        config.checkpoint,
        begin.tree,
        begin.scratch,
        ready.fixed,
        start,
        ready.choice,
        desk.lock.id if desk else "",
        partial(begin.watchdog.paused, config.checkpoint.patience_s),
    )
    before = group.on_main(lambda: _before(url, start))
    for fault in before["faults"] if desk else ():
        display.warn(fault)
    loop = Trainer(
        job,
        group,
        ready.engine,
        ready.model,
        display,
        saver,
        Anomalies(train.bad_step_budget, train.global_batch, before["anomalies"]),
        begin.asked,
        begin.watchdog,
        desk,
        before["useful_s"],
        before["began"],
        ready.held_out,
    )
    loop.recall(ready.state)
    if desk:
        _tell_grace(begin, desk, before["save"])
    if journal:
        journal.event(
            "start",
            began=process_began(),
            ready=time.time(),
            load_s=ready.load_s,
            step=start,
            world_size=world.size,
            zero_stage=ready.stage,
            cut=job.cut.describe(),
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            versions=installed("retfound-dist", "torch", "deepspeed"),
        )
    done = loop.run(stream, start)
    saver.close()
    if journal:
        journal.event("end", step=done, reason="finished" if done == job.steps else "stopped")
    ended = "finished" if done == job.steps else "stopped as asked" if done < job.last else "stopped"
    display.say(
        f"{ended} at step {done} of {job.steps}; checkpoint {checkpoint_folder.checkpoint_url(url, done)}"
    )


def _tell_grace(begin: Start, desk: RankZeroState, measured: SaveTime | None) -> None:
    """Say how long the run has to save when it is asked to stop, and what it needs."""
    model, train, world = begin.config.model, begin.config.train, begin.group.world
    state, weights = model_shapes.state_bytes(model, train.precision), 4 * model_shapes.parameters(model)
    need = measured or save_time.expected(state, weights, world.size // world.local_size)
    said, warned = save_time.lines(desk.graces, need, train.grace_s)
    begin.display.say(said)
    for line in warned:
        begin.display.warn(line)


def _before(url: str, start: int) -> dict[str, Any]:
    """What earlier starts of the run left: anomalies, time of the steps that count, when it all began.

    Bad lines of its logs are left out; `faults` says so.
    """
    logs = {
        name: read_log(url, name) for name in (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES)
    }
    rows = [row for row in each_step_once(logs[run_folder.METRICS].rows) if row["step"] <= start]
    steps = [0, *(row["step"] for row in rows)]
    useful = sum(
        (step - last) * row["step_s"] for row, step, last in zip(rows, steps[1:], steps, strict=False)
    )
    events = logs[run_folder.EVENTS].rows
    starts = [row["began"] for row in events if row["event"] == "start"]
    save = save_time.measured(events, rows[-1]["step_s"] if rows else 0.0)
    return {
        "anomalies": [row for row in logs[run_folder.ANOMALIES].rows if row["step"] <= start],
        "useful_s": useful,
        "began": min([*starts, process_began()]),
        "save": save,
        "faults": [log.fault for log in logs.values() if log.fault],
    }


def guarded(
    config: PretrainConfig,
    manifest: Manifest,
    world: World,
    quiet: bool,
    asked: StopRequest | None = None,
    debug: bool = False,
) -> int:
    """`pretrain`, where of an error before the ranks have met, which all share, only rank 0 speaks."""
    try:
        return pretrain(config, manifest, world, quiet, asked, debug)
    except RetfoundError as error:
        settle_another_start(ends_alike(error))
        if not world.is_main:
            if asked:
                asked.silent = True
            time.sleep(2 * HURRY_S)  # torchrun ends all ranks when one has left: rank 0 speaks first
            os._exit(error.exit_code)
        raise
