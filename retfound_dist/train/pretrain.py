"""`retfound pretrain`: sets up a start of a run, trains, and leaves in order.

`pretrain` joins the ranks; `run_joined` takes the lock, prepares the run (`run_setup.py`) and opens its logs;
`_train` hands all of it to `trainer.py`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from retfound_dist.train.ranks.watchdog import Watchdog, record_restart_wish, would_fail_again
from retfound_dist.train.run_setup import ReadyRun, RunContext, StoppedError, prepare_run, stop_if_asked
from retfound_dist.train.schedule import run_steps
from retfound_dist.train.trainer import RankZeroState, Trainer

LAST_WRITES_S = 5.0
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
    has_begun = run_folder.check_same_run(url, tree, manifest)
    if init_weights := run_folder.init_weights(url):
        tree[INIT_WEIGHTS] = init_weights
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    steps = run_steps(config, plan)
    with (
        TrainingDisplay(steps, shown=world.is_main and not quiet) as display,
        Scratch("run", world.owner) as scratch,
    ):
        # Before the ranks meet, which takes seconds, and before the lock: nothing is written here.
        if has_begun and is_finished(url, steps, config.run.resume):
            display.say(f"{url} has reached its last step, {steps}: nothing to do")
            return 0
        group = ds.start(world, config.train.threads)
        asked.together(display.warn if world.is_main else None)

        def clear() -> None:
            asked.ignore()
            display.end()

        # Before the upload process: from here on a rank that fails ends the others too.
        failures = RankFailures(group, watchdog, clear, debug)
        uploads, folder = UploadProcess(url), scratch.folder
        run_joined(
            RunContext(config, tree, manifest, group, display, uploads, asked, watchdog, folder, failures)
        )
        ds.stop()  # not after a failure: it would wait for a collective that never ends
    return INTERRUPTED if asked.interrupted else 0


def run_joined(context: RunContext) -> None:
    """Run or resume on ranks that have met; every rank calls it. Where one rank fails, all end.

    Until all that the config names was read, the lock is all that is written to the run.
    """
    try:
        with _locked(context) as lock:
            _check_data(context)
            ready = prepare_run(context)
            # The config is written only now: a start that fails before leaves no run behind, and the
            # corrected command starts. The stream comes first, for it may fail too.
            with (
                _open_stream(context, ready) as stream,
                _open_rank_zero_state(context, lock, ready.step) as rank_zero,
            ):
                _train(context, ready, stream, rank_zero)
        context.uploads.end()
        context.failures.end()
    except StoppedError:
        context.failures.end()
        context.uploads.abandon()
    except BaseException as error:
        # Also KeyboardInterrupt and SystemExit: the other ranks wait in a collective and have to be told.
        context.failures.leave(error)
        context.uploads.abandon()
        raise


def _check_data(context: RunContext) -> None:
    """RunConflictError where an old run had other data, or the ranks have read two states of the set.

    ManifestError on every rank where its counts are not those of its indexes.
    """
    config, manifest, group = context.config, context.manifest, context.group
    # On rank 0 alone: both read indexes of shards, and a thousand ranks would ask the store for the same.
    group.on_main(lambda: check_counts(manifest.url, manifest.shards, config.data.patience_s))
    group.on_main(lambda: check_old_run(config, manifest))
    # Every rank read the manifest by itself before the ranks met; `retfound pack` may append meanwhile.
    descriptions = group.gather(describe_set(manifest))
    if any(description != descriptions[0] for description in descriptions):
        raise RunConflictError(
            f"{config.data.shards} changed while the ranks of {config.run.url} read it: start again when "
            "packing is done"
        )


@contextmanager
def _locked(context: RunContext) -> Iterator[RunLock | None]:
    """The lock, on rank 0; RunConflictError on every rank when another run holds it."""
    lock = RunLock(context.config.run.url, context.display.say) if context.group.world.is_main else None
    if lock:
        # Not in a `finally`: where another rank fails, a thread ends this process, and no `finally` runs.
        context.failures.at_end.append(lambda _: _release_lock(lock))
    context.group.on_main(lambda: lock.take() if lock else None)
    try:
        yield lock
    except StoppedError:
        if lock:
            lock.release()
        raise
    if lock:
        lock.release()


def _release_lock(lock: RunLock) -> None:
    """Release the lock of a run that fails."""
    # By a thread, for a store that does not answer is not waited for: a lock that stays is taken over when
    # its holder gives no sign.
    release = threading.Thread(target=lock.release, daemon=True)
    release.start()
    release.join(LAST_WRITES_S)


@contextmanager
def _open_rank_zero_state(
    context: RunContext, lock: RunLock | None, step: int
) -> Iterator[RankZeroState | None]:
    """Write the run's config and open its logs, on rank 0."""
    config, url = context.config, context.config.run.url
    rank_zero: RankZeroState | None = None

    def open_state() -> None:
        nonlocal rank_zero
        assert lock is not None
        board = TensorBoard(url, context.uploads, context.scratch, step) if config.train.tensorboard else None
        run_folder.write_config(url, context.tree)
        logger = RunLogger(url, context.uploads, config.checkpoint.patience_s)
        rank_zero = RankZeroState(logger, lock, board, known_graces(os.environ))
        context.failures.at_end.append(partial(_log_failures, rank_zero.logger))

    context.group.on_main(open_state)
    yield rank_zero
    if rank_zero:
        if rank_zero.board:
            rank_zero.board.close()
        if fault := rank_zero.logger.close():
            context.display.warn(f"the last lines of the run's logs could not be written: {fault}")


def _log_failures(logger: RunLogger, failures: Sequence[Failure]) -> None:
    """Log why the run fails, and write the last lines of its logs."""
    for failure in failures:
        logger.event("failed", **failure.facts())
    logger.close(longest_s=LAST_WRITES_S)


def _open_stream(context: RunContext, ready: ReadyRun) -> Stream:
    """This rank's batches from the step on where the run stands."""
    config = context.config
    return open_stream(
        context.manifest,
        config.train.global_batch,
        micro_batch=ready.job.cut.micro,
        image_size=config.model.image_size,
        patches=ready.model.patches,
        seed=config.train.seed,
        world=context.group.world,
        start_step=ready.step,
        stop_step=ready.job.last,
        data=config.data,
        counted=True,
    )


def _train(context: RunContext, ready: ReadyRun, stream: Stream, rank_zero: RankZeroState | None) -> None:
    """Train from where the run stands to its last step, or to where it is asked to stop."""
    config, group, display, job, start = context.config, context.group, context.display, ready.job, ready.step
    train, url, world = config.train, config.run.url, group.world
    # The last chance to leave together without a step; from here on `Trainer.run` looks after each step.
    stop_if_asked(context)
    context.asked.stage = Stage.TRAINING
    logger = rank_zero.logger if rank_zero else None
    saver = Saver(
        group,
        context.uploads,
        logger,
        url,
        config.checkpoint,
        context.tree,
        context.scratch,
        ready.untrained,
        start,
        ready.resume_point,
        rank_zero.lock.id if rank_zero else "",
        partial(context.watchdog.paused, config.checkpoint.patience_s),
    )
    earlier = group.on_main(lambda: _read_earlier_starts(url, start))
    for fault in earlier.log_faults if rank_zero else ():
        display.warn(fault)
    trainer = Trainer(
        job,
        group,
        ready.engine,
        ready.model,
        display,
        saver,
        Anomalies(train.bad_step_budget, train.global_batch, earlier.anomalies),
        context.asked,
        context.watchdog,
        rank_zero,
        earlier.useful_s,
        earlier.began,
        ready.held_out,
    )
    trainer.load_state(ready.state)
    if rank_zero:
        _report_grace(context, rank_zero, earlier.save_time)
    if logger:
        logger.event(
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
    done = trainer.run(stream, start)
    saver.close()
    if logger:
        logger.event("end", step=done, reason="finished" if done == job.steps else "stopped")
    ended = "finished" if done == job.steps else "stopped as asked" if done < job.last else "stopped"
    display.say(
        f"{ended} at step {done} of {job.steps}; checkpoint {checkpoint_folder.checkpoint_url(url, done)}"
    )


def _report_grace(context: RunContext, rank_zero: RankZeroState, measured: SaveTime | None) -> None:
    """Say how long the run has to save when it is asked to stop, and what it needs."""
    model, train, world = context.config.model, context.config.train, context.group.world
    state, weights = model_shapes.state_bytes(model, train.precision), 4 * model_shapes.parameter_count(model)
    need = measured or save_time.expected_save_time(state, weights, world.size // world.local_size)
    line, warning_lines = save_time.save_time_lines(rank_zero.graces, need, train.grace_s)
    context.display.say(line)
    for warning in warning_lines:
        context.display.warn(warning)


@dataclass(frozen=True)
class EarlierStarts:
    """What earlier starts of the run left in its logs, up to the step where this one goes on."""

    anomalies: list[dict[str, Any]]
    useful_s: float
    """Seconds of the steps that count, each once."""
    began: float
    """Unix time of the run's first start."""
    save_time: SaveTime | None
    """As measured; None where the run has committed no checkpoint yet."""
    log_faults: list[str]
    """Bad lines that were left out."""


def _read_earlier_starts(url: str, start: int) -> EarlierStarts:
    """Read the run's logs; steps after `start` were passed over at the resume, and do not count."""
    logs = {
        name: read_log(url, name) for name in (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES)
    }
    rows = [row for row in each_step_once(logs[run_folder.METRICS].rows) if row["step"] <= start]
    steps = [0, *(row["step"] for row in rows)]
    # A row's `step_s` is the mean over the steps since the row before it.
    useful_s = sum(
        (step - last) * row["step_s"] for row, step, last in zip(rows, steps[1:], steps, strict=False)
    )
    events = logs[run_folder.EVENTS].rows
    starts = [row["began"] for row in events if row["event"] == "start"]
    save = save_time.measured_save_time(events, rows[-1]["step_s"] if rows else 0.0)
    return EarlierStarts(
        anomalies=[row for row in logs[run_folder.ANOMALIES].rows if row["step"] <= start],
        useful_s=useful_s,
        began=min([*starts, process_began()]),
        save_time=save,
        log_faults=[log.fault for log in logs.values() if log.fault],
    )


def guarded(
    config: PretrainConfig,
    manifest: Manifest,
    world: World,
    quiet: bool,
    asked: StopRequest | None = None,
    debug: bool = False,
) -> int:
    """`pretrain`, where only rank 0 prints an error of the time before the ranks have met.

    All ranks have the same error there: a config, a manifest or a run that each of them reads.
    """
    try:
        return pretrain(config, manifest, world, quiet, asked, debug)
    except RetfoundError as error:
        record_restart_wish(would_fail_again(error))
        if not world.is_main:
            if asked:
                asked.silent = True
            # torchrun ends all ranks as soon as one has left, so rank 0 has to be the first.
            time.sleep(2 * LAST_WRITES_S)
            os._exit(error.exit_code)
        raise
