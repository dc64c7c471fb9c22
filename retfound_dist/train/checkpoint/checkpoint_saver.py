"""Saves checkpoints: every rank writes its part while training continues, then rank 0 commits.

`state/` has DeepSpeed's sharded training state, `model.safetensors` all weights in fp32 under MAE's names. A
save has these steps. Training waits only for the first one:

1. `Saver.save` copies each rank's state to host memory.
2. A thread writes it to local scratch (`TMPDIR`), and the upload process copies that to the run's URL.
3. When all parts are at the run's URL, `Saver.start_commit` starts the commit in rank 0's upload process.
4. That process merges the weights (`merge_weights.py`) and commits (`finalize.py`).

A checkpoint exists once its COMMIT.json is written.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from retfound_dist.config.schema import Checkpoint
from retfound_dist.errors import SaveError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.io import scratch
from retfound_dist.io.retry import Patience, call_with_retries
from retfound_dist.io.storage import FileInfo
from retfound_dist.train.checkpoint.finalize import CheckpointToFinalize, finalize_checkpoint
from retfound_dist.train.checkpoint.merge_weights import (
    Shapes,
    group_shapes,
    local_write_errors,
    part_name,
    rank_weights,
    write_tensors,
)
from retfound_dist.train.checkpoint.resume import FROM_THE_BEGINNING, ResumePoint
from retfound_dist.train.engine.training_engine import RUN_STATE, TrainingEngine
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.ranks import upload_process
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.upload_process import UploadProcess


@dataclass(frozen=True)
class Position:
    """The progress of a run, as in COMMIT.json."""

    step: int
    samples: int
    batch_digest: str


@dataclass
class _Pending:
    """A save that is not committed yet."""

    position: Position
    upload_job: Future[dict[str, FileInfo]]
    """Writes and uploads this rank's part. Its result: the part's files at the run's URL."""
    shapes: Shapes
    """Of all weights; empty on all ranks but 0."""
    stall_s: float
    """How long training waited for it."""
    started: float
    commit_job: Future[None] | None = None
    """None until every rank's part is at the run's URL. Done at once on all ranks but 0, which commits."""


class Saver:
    """Saves checkpoints one after the other: a save waits for the commit of the one before."""

    def __init__(
        self,
        group: RankGroup,
        uploads: UploadProcess,
        logger: RunLogger | None,
        run_url: str,
        settings: Checkpoint,
        config: dict[str, Any],
        scratch: str,
        untrained: dict[str, Tensor],
        last_committed: int = 0,
        resume_point: ResumePoint = FROM_THE_BEGINNING,
        lock_id: str = "",
        watchdog_paused: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`untrained`: tensors in fp32, which DeepSpeed has rounded to the working precision.

        `resume_point`: the checkpoint of this start. `lock_id`: of the run's lock; without it nothing is
        committed. `watchdog_paused`: entered while this rank alone waits, never around a collective.
        """
        self._watchdog_paused = watchdog_paused
        self._group, self._uploads, self._logger = group, uploads, logger
        self._url, self._settings, self._config, self._scratch = run_url, settings, config, scratch
        self._resume_point, self._lock_id, self._mark = resume_point, lock_id, ""
        # Written to a file once: the upload process reads it at every commit.
        self._untrained = os.path.join(scratch, "fixed.safetensors")
        if group.world.is_main:
            write_tensors(untrained, self._untrained)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: _Pending | None = None
        self._save_count, self._zero_stage = 0, 0
        self.last_committed = last_committed
        """Step of the newest committed checkpoint that this rank knows of; 0: none."""
        self.save_duration_s = 0.0
        """Seconds from the beginning of the last save to its commit; 0: this start has committed none yet."""

    def save(self, engine: TrainingEngine, position: Position, run_state: dict[str, Any]) -> None:
        """Begin the checkpoint of a step; every rank must call it. `restore` returns the `run_state`."""
        started = time.perf_counter()
        # Two saves at once would hold two copies of the state in host memory and in scratch.
        self.finish_save()
        self._save_count += 1
        self._mark = self._group.broadcast(checkpoint_folder.new_mark())
        # DeepSpeed's conversion to another number of ranks fails without `universal_checkpoint_info`.
        client_state = {**asdict(position), RUN_STATE: run_state, "universal_checkpoint_info": {}}
        with scratch.temporary_disk_errors(self._scratch):
            folder = tempfile.mkdtemp(prefix="checkpoint-", dir=self._scratch)
            state = engine.snapshot(folder, client_state)
        self._zero_stage = engine.zero_stage
        url = checkpoint_folder.checkpoint_url(self._url, position.step)
        upload_job = self._writer.submit(self._write, folder, state, url)
        shapes = group_shapes(state) if self._group.world.is_main else []
        self._pending = _Pending(position, upload_job, shapes, time.perf_counter() - started, started)

    def flags(self) -> tuple[int, int]:
        """For the exchange after each step: whether this rank's part is written, whether a save failed."""
        pending = self._pending
        if pending is None:
            return 0, 0
        self._record_commit()
        return int(pending.commit_job is None and pending.upload_job.done()), int(bool(self._failure_text()))

    def finish_save(self) -> None:
        """Wait until the pending save is committed; SaveError if it fails. Every rank must call it."""
        if not self._save_count:
            return
        # Here all ranks wait for the slowest upload. In `Trainer.run` the commit starts without a wait.
        self.start_commit()
        if self._pending is not None and self._pending.commit_job is not None:
            with self._watchdog_paused():
                # Waits and does not raise: `raise_if_failed` below raises on all ranks.
                self._pending.commit_job.exception()
            self._record_commit()
        self.raise_if_failed()

    def close(self) -> None:
        """Close the saver, after the last save."""
        self._writer.shutdown(wait=False)  # `finish_save` has waited for its thread

    def start_commit(self) -> None:
        """Start the commit in rank 0's upload process; every rank must call it. Waits for its own part."""
        pending = self._pending
        if pending is None or pending.commit_job is not None:
            return
        with self._watchdog_paused():
            pending.upload_job.exception()
        self.raise_if_failed()
        parts = self._group.gather(pending.upload_job.result())
        pending.commit_job = Future()
        if not self._group.world.is_main:
            pending.commit_job.set_result(None)
            return
        files = {name: info for part in parts for name, info in sorted(part.items())}
        ranks = range(self._group.world.size)
        weights = [files.pop(checkpoint_folder.name_with_mark(part_name(rank), self._mark)) for rank in ranks]
        commit = Commit(
            url=checkpoint_folder.checkpoint_url(self._url, pending.position.step),
            **asdict(pending.position),
            world_size=self._group.world.size,
            zero_stage=self._zero_stage,
            precision=self._config["train"]["precision"],
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            config=self._config,
            files=files,
            generation=self._resume_point.generation,
            chosen=self._resume_point.chosen,
        )
        # First, to the same process: once the commit exists, the log has all rows up to its step.
        if self._logger:
            self._logger.flush()
        pending.commit_job = self._uploads.submit(
            finalize_checkpoint,
            CheckpointToFinalize(
                run_url=self._url,
                commit=commit,
                mark=self._mark,
                parts=weights,
                shapes=pending.shapes,
                untrained=self._untrained,
                scratch=self._scratch,
                settings=self._settings,
                lock_id=self._lock_id,
            ),
        )

    def raise_if_failed(self) -> None:
        """Raise SaveError on all ranks if the save has failed on one of them; every rank must call it."""
        faults_of_ranks = enumerate(self._group.gather(self._failure_text()))
        faults = [f"rank {rank}: {fault}" for rank, fault in faults_of_ranks if fault]
        if faults:
            raise self._save_error(faults[0])

    def _failure_text(self) -> str:
        """Why the pending save has failed on this rank; empty if it has not, so far."""
        if self._pending is None:
            return ""
        calls = (self._pending.upload_job, self._pending.commit_job)
        finished = [call for call in calls if call is not None and call.done()]
        return next(filter(None, map(upload_process.failure_text, finished)), "")

    def _record_commit(self) -> None:
        """Note the pending save as the newest checkpoint, once it is committed.

        A save that failed on this rank stays pending, and `raise_if_failed` reports it.
        """
        pending = self._pending
        if (
            pending is None
            or pending.commit_job is None
            or not pending.commit_job.done()
            or self._failure_text()
        ):
            return
        self.last_committed, self._pending = pending.position.step, None
        self.save_duration_s = time.perf_counter() - pending.started
        if self._logger:
            self._logger.event(
                "checkpoint",
                step=pending.position.step,
                stall_s=pending.stall_s,
                took_s=self.save_duration_s,
                bytes_of_rank_0=sum(info.bytes for info in pending.upload_job.result().values()),
            )

    def _write(self, scratch: str, state: dict[str, Any], url: str) -> dict[str, FileInfo]:
        """Write this rank's files to scratch and upload them; run by the thread."""
        patience_s = self._settings.patience_s
        try:
            call_with_retries(lambda: self._write_scratch(scratch, state), Patience(scratch, patience_s))
            return self._uploads.submit(upload_process.upload, scratch, url, patience_s, self._mark).result()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_scratch(self, scratch: str, state: dict[str, Any]) -> None:
        path = os.path.join(scratch, part_name(self._group.world.rank))
        for place in (path, *state):
            with local_write_errors(place):
                os.makedirs(os.path.dirname(place), exist_ok=True)
        write_tensors(rank_weights(state), path)
        for path, value in state.items():
            with local_write_errors(path):
                torch.save(value, path)

    def _save_error(self, fault: str) -> SaveError:
        """The error that names the failed step and the last checkpoint that can be used."""
        step = self._pending.position.step if self._pending else self.last_committed
        last = "there is none yet"
        if self.last_committed:
            last = f"the last good one is of step {self.last_committed}"
        return SaveError(f"the checkpoint of step {step} could not be saved, {last}: {fault}")
