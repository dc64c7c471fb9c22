"""Checkpoints: every rank writes its part while training goes on, rank 0 commits when all parts are there.

`state/` holds DeepSpeed's sharded training state, `model.safetensors` all weights in fp32 under MAE's names.
A save goes through these steps, and training waits for the first one alone:

1. `Saver.save` copies each rank's state to host memory.
2. A thread writes it to local scratch (`TMPDIR`), and the upload process copies that to the run's URL.
3. When the parts of all ranks are there, `Saver.start_commit` hands them to rank 0's upload process.
4. That process puts the weights together (`merge_weights.py`) and commits (`finalize.py`).

A checkpoint exists from its COMMIT.json on.
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
    disk_named,
    group_shapes,
    part_name,
    rank_weights,
    write_tensors,
)
from retfound_dist.train.checkpoint.resume import FROM_THE_BEGINNING, ResumePoint
from retfound_dist.train.engine import deepspeed_engine as ds
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.ranks import upload_process
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.upload_process import UploadProcess


@dataclass(frozen=True)
class Position:
    """How far a run is; COMMIT.json holds it."""

    step: int
    samples: int
    batch_digest: str


@dataclass
class _Pending:
    """A save that is not committed yet."""

    at: Position
    part: Future[dict[str, FileInfo]]
    """This rank's files, once they are at the run's URL."""
    shapes: Shapes
    """Of all weights; on rank 0."""
    stall_s: float
    """How long training stood still for it."""
    begun: float
    commit_job: Future[None] | None = None
    """None until every rank's part is there. Done at once on all ranks but 0, which alone commits."""


class Saver:
    """Saves checkpoints one after the other; a save waits for the commit of the one before."""

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
        last_good: int = 0,
        resume_point: ResumePoint = FROM_THE_BEGINNING,
        lock_id: str = "",
        watchdog_paused: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`untrained`: tensors in fp32, which DeepSpeed has rounded to the working precision.

        `resume_point`: where this start goes on from. `lock_id`: of the run's lock; who lost it commits
        nothing. `watchdog_paused`: entered around what this rank waits for by itself, never around a
        collective.
        """
        self._watchdog_paused = watchdog_paused
        self._group, self._uploads, self._logger = group, uploads, logger
        self._url, self._settings, self._config, self._scratch = run_url, settings, config, scratch
        self._resume_point, self._lock_id, self._mark = resume_point, lock_id, ""
        # To a file once: the upload process needs it at every commit, and is handed a path.
        self._untrained = os.path.join(scratch, "fixed.safetensors")
        if group.world.is_main:
            write_tensors(untrained, self._untrained)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: _Pending | None = None
        self._saves, self._zero_stage = 0, 0
        self.last_good = last_good
        """Step of the newest checkpoint that is committed, as far as this rank knows; 0: none."""
        self.took_s = 0.0
        """Seconds from the beginning of its save to its commit; 0: this start has committed none yet."""

    def save(self, engine: Any, at: Position, run_state: dict[str, Any]) -> None:
        """Begin the checkpoint of a step; every rank must call it. `run_state` comes back from `restore`."""
        begun = time.perf_counter()
        # Two saves at once would hold two copies of the state in host memory and in scratch.
        self.finish_save()
        self._saves += 1
        self._mark = self._group.share(checkpoint_folder.new_mark())
        # DeepSpeed's conversion to another number of ranks looks for `universal_checkpoint_info` and fails
        # without it.
        client_state = {**asdict(at), ds.RUN_STATE: run_state, "universal_checkpoint_info": {}}
        with scratch.disk_named(self._scratch):
            folder = tempfile.mkdtemp(prefix="checkpoint-", dir=self._scratch)
            state = ds.snapshot(engine, folder, client_state)
        self._zero_stage = engine.zero_optimization_stage()
        url = checkpoint_folder.checkpoint_url(self._url, at.step)
        part = self._writer.submit(self._write, folder, state, url)
        shapes = group_shapes(state) if self._group.world.is_main else []
        self._pending = _Pending(at, part, shapes, time.perf_counter() - begun, begun)

    def flags(self) -> tuple[int, int]:
        """For the exchange after each step: whether this rank's part is written, whether a save failed."""
        pending = self._pending
        if pending is None:
            return 0, 0
        self._record_commit()
        return int(pending.commit_job is None and pending.part.done()), int(bool(self._fault()))

    def finish_save(self) -> None:
        """Wait until what was saved is committed, or SaveError; every rank must call it."""
        if not self._saves:
            return
        # Here all ranks may wait for the slowest upload; in `Trainer.run` the commit starts when all parts
        # are there.
        self.start_commit()
        if self._pending is not None and self._pending.commit_job is not None:
            with self._watchdog_paused():
                self._pending.commit_job.exception()
            self._record_commit()
        self.check()

    def close(self) -> None:
        """After the last save."""
        self._writer.shutdown(wait=False)  # its thread is done: `finish_save` has waited

    def start_commit(self) -> None:
        """Have rank 0's upload process commit; every rank must call it. Waits for this rank's part."""
        pending = self._pending
        if pending is None or pending.commit_job is not None:
            return
        with self._watchdog_paused():
            pending.part.exception()
        self.check()
        parts = self._group.gather(pending.part.result())
        pending.commit_job = Future()
        if not self._group.world.is_main:
            pending.commit_job.set_result(None)
            return
        files = {name: info for part in parts for name, info in sorted(part.items())}
        ranks = range(self._group.world.size)
        weights = [files.pop(checkpoint_folder.name_with_mark(part_name(rank), self._mark)) for rank in ranks]
        commit = Commit(
            url=checkpoint_folder.checkpoint_url(self._url, pending.at.step),
            **asdict(pending.at),
            world_size=self._group.world.size,
            zero_stage=self._zero_stage,
            precision=self._config["train"]["precision"],
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            config=self._config,
            files=files,
            generation=self._resume_point.generation,
            chosen=self._resume_point.chosen,
        )
        # First, to the same process: whoever finds the commit finds the log up to its step.
        if self._logger:
            self._logger.flush()
        pending.commit_job = self._uploads.submit(
            finalize_checkpoint,
            CheckpointToFinalize(
                self._url,
                commit,
                self._mark,
                weights,
                pending.shapes,
                self._untrained,
                self._scratch,
                self._settings,
                self._lock_id,
            ),
        )

    def check(self) -> None:
        """All ranks together: SaveError where a save of any of them has failed."""
        faults = [f"rank {rank}: {why}" for rank, why in enumerate(self._group.gather(self._fault())) if why]
        if faults:
            raise self._error(faults[0])

    def _fault(self) -> str:
        """Why the save under way has failed here; empty when it has not, so far."""
        if self._pending is None:
            return ""
        ended = [f for f in (self._pending.part, self._pending.commit_job) if f is not None and f.done()]
        return next((why for why in map(upload_process.failure_text, ended) if why), "")

    def _record_commit(self) -> None:
        """Note the save under way as the last good one, once it is committed."""
        pending = self._pending
        if pending is None or pending.commit_job is None or not pending.commit_job.done() or self._fault():
            return
        self.last_good, self._pending = pending.at.step, None
        self.took_s = time.perf_counter() - pending.begun
        if self._logger:
            self._logger.event(
                "checkpoint",
                step=pending.at.step,
                stall_s=pending.stall_s,
                took_s=self.took_s,
                bytes_of_rank_0=sum(info.bytes for info in pending.part.result().values()),
            )

    def _write(self, scratch: str, state: dict[str, Any], url: str) -> dict[str, FileInfo]:
        """Write this rank's files to scratch and copy them to the run's URL; run by the thread."""
        patience_s = self._settings.patience_s
        try:
            call_with_retries(lambda: self._write_scratch(scratch, state), Patience(scratch, patience_s))
            return self._uploads.submit(upload_process.upload, scratch, url, patience_s, self._mark).result()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_scratch(self, scratch: str, state: dict[str, Any]) -> None:
        path = os.path.join(scratch, part_name(self._group.world.rank))
        with disk_named(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        write_tensors(rank_weights(state), path)
        for path, value in state.items():
            with disk_named(path):
                torch.save(value, path)

    def _error(self, fault: str) -> SaveError:
        step = self._pending.at.step if self._pending else self.last_good
        good = f"the last good one is of step {self.last_good}" if self.last_good else "there is none yet"
        return SaveError(f"the checkpoint of step {step} could not be saved, {good}: {fault}")
