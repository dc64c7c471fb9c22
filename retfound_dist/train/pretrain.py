"""`retfound pretrain`: starts or resumes a run, trains, and ends it in order.

`pretrain` joins the ranks. `run_joined` takes the lock, prepares the run (`run_setup.py`) and opens its logs.
`_train` starts the training loop (`trainer.py`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from retfound_dist.config import loading as configs
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import RetfoundError, RunConflictError
from retfound_dist.estimate import model_shapes, save_time
from retfound_dist.estimate.save_time import SaveTime, known_graces
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.content_identity import INIT_WEIGHTS, SHARD_SET, describe_set
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.formats.shard_set_counts import check_counts
from retfound_dist.io.scratch import Scratch
from retfound_dist.model.devices import device_name
from retfound_dist.runtime.versions import installed
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import Stream, make_plan, open_stream
from retfound_dist.train.checkpoint.checkpoint_saver import Saver
from retfound_dist.train.checkpoint.resume import is_finished
from retfound_dist.train.engine.engine_choice import check_deepspeed_version
from retfound_dist.train.health.anomalies import Anomalies
from retfound_dist.train.health.run_lock import RunLock
from retfound_dist.train.logs.earlier_starts import read_earlier_starts
from retfound_dist.train.logs.profiling import TensorBoard
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.logs.telemetry import process_began, training_display
from retfound_dist.train.old_run_data import check_old_run
from retfound_dist.train.ranks.preemption import INTERRUPTED, Stage, StopRequest
from retfound_dist.train.ranks.process_group import (
    collective_timeout,
    join_ranks,
    leave_ranks,
    prints_error,
    with_worker_count,
)
from retfound_dist.train.ranks.rank_failures import Failure, RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog, cancel_restart, record_restart, would_fail_again
from retfound_dist.train.run_setup import (
    ReadyRun,
    RunContext,
    StoppedError,
    prepare_run,
    stop_if_requested,
)
from retfound_dist.train.schedule import run_steps
from retfound_dist.train.trainer import RankZeroState, Trainer

LAST_WRITES_S = 5.0
"""Longest time for a failing run to write its last log rows and to release its lock, in seconds."""


def pretrain_command(
    config: PretrainConfig,
    manifest: Manifest,
    world: World,
    quiet: bool,
    stop_request: StopRequest | None = None,
    debug: bool = False,
) -> int:
    """`pretrain`, but one rank alone prints an error that occurs before the ranks have joined."""
    try:
        return pretrain(config, manifest, world, quiet, stop_request, debug)
    except RetfoundError as error:
        record_restart(would_fail_again(error))
        if not prints_error(error, world):
            if stop_request:
                stop_request.silent = True
            # torchrun ends all ranks as soon as one has exited, so rank 0 has to be the first.
            time.sleep(2 * LAST_WRITES_S)
            os._exit(error.exit_code)
        raise


def pretrain(
    config: PretrainConfig,
    manifest: Manifest,
    world: World,
    quiet: bool = False,
    stop_request: StopRequest | None = None,
    debug: bool = False,
) -> int:
    """Start or resume a run; returns the exit code. Every rank calls it. `stop_request` listens already."""
    check_deepspeed_version()
    if stop_request is None:
        stop_request = StopRequest()
        stop_request.listen()
    stop_request.set_time_limit(config.train.max_minutes)
    watchdog = Watchdog(world, config.train.hang_minutes, config.run.url)
    watchdog.start()
    url = config.run.url
    config_tree = {**configs.to_dict(config), SHARD_SET: describe_set(manifest)}
    has_begun = run_folder.check_same_run(url, config_tree, manifest)
    if init_weights := run_folder.init_weights(url):
        config_tree[INIT_WEIGHTS] = init_weights
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    steps = run_steps(config, plan)
    with (
        training_display(shown=world.is_main and not quiet) as display,
        Scratch("run", world.owner) as scratch,
    ):
        display.begin("pretraining", "steps")
        # Before the ranks join, which takes seconds, and before the lock: nothing is written here.
        if has_begun and is_finished(url, steps, config.run.resume):
            display.say(f"{url} has reached its last step, {steps}: nothing to do")
            cancel_restart()
            return 0
        timeout = collective_timeout(config.train.hang_minutes, config.checkpoint.patience_s)
        group = join_ranks(world, config.train.threads, config.train.device, timeout)
        # Not before: how many cores a rank has is known when the ranks of its host have joined.
        config = with_worker_count(config, group)
        stop_request.enter_setup(display.warn if world.is_main else None)

        def clear_display() -> None:
            stop_request.ignore_signals()
            display.end()

        # Before the upload process: from here on a rank that fails ends the others too.
        failures = RankFailures(group, watchdog, clear_display, debug)
        run_joined(
            RunContext(
                config=config,
                config_tree=config_tree,
                manifest=manifest,
                group=group,
                display=display,
                uploads=UploadProcess(url),
                stop_request=stop_request,
                watchdog=watchdog,
                scratch=scratch.folder,
                failures=failures,
            )
        )
        leave_ranks()  # not after a failure: it would wait for a collective that never ends
    return INTERRUPTED if stop_request.interrupted else 0


def run_joined(context: RunContext) -> None:
    """Start or resume the run on ranks that have joined; every rank calls it. If one fails, all end.

    Until everything that the config names has been read, only the lock is written to the run.
    """
    try:
        with _locked(context) as lock:
            _check_data(context)
            ready = prepare_run(context)
            # The config is written only now: a start that fails earlier leaves no run behind, so the
            # corrected command can start. The stream is opened first, because that may fail too.
            with (
                _open_stream(context, ready) as stream,
                _open_rank_zero_state(context, lock, ready.step) as rank_zero,
            ):
                _train(context, ready, stream, rank_zero)
        context.uploads.finish()
        context.failures.close()
    except StoppedError:
        context.failures.close()
        context.uploads.terminate()
    except BaseException as error:
        # Also KeyboardInterrupt and SystemExit: the other ranks wait in a collective and need the report.
        context.failures.report_and_exit(error)
        context.uploads.terminate()
        raise


def _check_data(context: RunContext) -> None:
    """Check on all ranks that the shard set is complete and the same as before.

    RunConflictError if an old run had other data, or if the ranks have read different states of the set.
    ManifestError if its counts differ from those of its indexes.
    """
    config, manifest, group = context.config, context.manifest, context.group
    # On rank 0 alone: both read indexes of shards, and a thousand ranks would send the store the same
    # requests.
    group.run_on_main(lambda: check_counts(manifest.url, manifest.shards, config.data.patience_s))
    group.run_on_main(lambda: check_old_run(config, manifest))
    # Every rank read the manifest by itself before the ranks joined; `retfound pack` may append meanwhile.
    descriptions = group.gather(describe_set(manifest))
    if any(description != descriptions[0] for description in descriptions):
        raise RunConflictError(
            f"{config.data.shards} changed while the ranks of {config.run.url} read it: start again when "
            "packing is done"
        )


@contextmanager
def _locked(context: RunContext) -> Iterator[RunLock | None]:
    """The lock, on rank 0; RunConflictError on every rank if another run holds it."""
    lock = RunLock(context.config.run.url, context.display.say) if context.group.world.is_main else None
    if lock:
        # Not in a `finally`: if another rank fails, a thread ends this process, and no `finally` runs.
        context.failures.exit_callbacks.append(lambda _: _release_lock(lock))
    context.group.run_on_main(lambda: lock.acquire() if lock else None)
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
    # In a thread, not to wait for a store that does not answer: a lock that is not renewed expires.
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
        run_folder.write_config(url, context.config_tree)
        logger = RunLogger(url, context.uploads, config.checkpoint.patience_s)
        rank_zero = RankZeroState(logger, lock, board, known_graces(os.environ))
        context.failures.exit_callbacks.append(partial(_log_failures, rank_zero.logger))

    context.group.run_on_main(open_state)
    yield rank_zero
    if rank_zero:
        if rank_zero.board:
            rank_zero.board.close()
        if fault := rank_zero.logger.close():
            context.display.warn(f"the last lines of the run's logs could not be written: {fault}")


def _log_failures(logger: RunLogger, failures: Sequence[Failure]) -> None:
    """Log why the run fails, and write the last rows of its logs."""
    for failure in failures:
        logger.event("failed", **failure.event_fields())
    logger.close(longest_s=LAST_WRITES_S)


def _open_stream(context: RunContext, ready: ReadyRun) -> Stream:
    """This rank's batches, from the next step on."""
    config = context.config
    return open_stream(
        context.manifest,
        config.train.global_batch,
        micro_batch=ready.schedule.layout.micro,
        image_size=config.model.image_size,
        patches=ready.model.patches,
        seed=config.train.seed,
        world=context.group.world,
        start_step=ready.step,
        stop_step=ready.schedule.last_step,
        data=config.data,
        counts_checked=True,
    )


def _train(context: RunContext, ready: ReadyRun, stream: Stream, rank_zero: RankZeroState | None) -> None:
    """Train from the step of the checkpoint to the last step, or until the run is asked to stop."""
    config, group, display, schedule = context.config, context.group, context.display, ready.schedule
    # The last chance to leave together before a step; from here on `Trainer.run` checks after each step.
    stop_if_requested(context)
    context.stop_request.stage = Stage.TRAINING
    logger = rank_zero.logger if rank_zero else None
    saver = _make_saver(context, ready, rank_zero)
    earlier = group.run_on_main(lambda: read_earlier_starts(config.run.url, ready.step))
    for fault in earlier.log_faults if rank_zero else ():
        display.warn(fault)
    trainer = Trainer(
        schedule=schedule,
        group=group,
        engine=ready.engine,
        model=ready.model,
        display=display,
        saver=saver,
        anomalies=Anomalies(config.train.bad_step_budget, config.train.global_batch, earlier.anomalies),
        stop_request=context.stop_request,
        watchdog=context.watchdog,
        rank_zero=rank_zero,
        useful_s=earlier.useful_s,
        began=earlier.began,
        held_out=ready.held_out,
    )
    trainer.load_state(ready.run_state)
    if rank_zero:
        _report_grace(context, rank_zero, earlier.save_time)
    if logger:
        logger.event(
            "start",
            began=process_began(),
            ready=time.time(),
            load_s=ready.load_s,
            step=ready.step,
            world_size=group.world.size,
            zero_stage=ready.zero_stage,
            cut=schedule.layout.describe(),
            device=device_name(group.device),
            versions=installed("retfound-dist", "torch", "deepspeed"),
        )
    done = trainer.run(stream, ready.step)
    saver.close()
    finished = done == schedule.steps
    if logger:
        logger.event("end", step=done, reason="finished" if finished else "stopped")
    outcome = "finished" if finished else "stopped as asked" if done < schedule.last_step else "stopped"
    checkpoint = checkpoint_folder.checkpoint_url(config.run.url, done)
    display.say(f"{outcome} at step {done} of {schedule.steps}; checkpoint {checkpoint}")


def _make_saver(context: RunContext, ready: ReadyRun, rank_zero: RankZeroState | None) -> Saver:
    settings = context.config.checkpoint
    return Saver(
        context.group,
        context.uploads,
        rank_zero.logger if rank_zero else None,
        context.config.run.url,
        settings,
        context.config_tree,
        context.scratch,
        ready.untrained,
        last_committed=ready.step,
        resume_point=ready.resume_point,
        lock_id=rank_zero.lock.id if rank_zero else "",
        watchdog_paused=partial(context.watchdog.paused, settings.patience_s),
    )


def _report_grace(context: RunContext, rank_zero: RankZeroState, measured: SaveTime | None) -> None:
    """Show how long a save takes when the run is asked to stop, and how long it may take."""
    model, train, world = context.config.model, context.config.train, context.group.world
    state, weights = model_shapes.state_bytes(model, train.precision), 4 * model_shapes.parameter_count(model)
    expected = measured or save_time.expected_save_time(state, weights, world.size // world.local_size)
    line, warning_lines = save_time.save_time_lines(rank_zero.graces, expected, train.grace_s)
    context.display.say(line)
    for warning in warning_lines:
        context.display.warn(warning)
