"""Chooses the checkpoint from which a start resumes: the newest undamaged one, or that of `run.resume`.

A checkpoint is skipped only if it is damaged: its commit or one of its files, read several times from the
store, is not what was committed. A store that fails, a full or failing disk, a missing permission and too
little memory say nothing about a checkpoint. They end the start. If all checkpoints are damaged, that also
ends the start, and the run begins again only with `run.resume=none`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from retfound_dist.errors import CheckpointError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit, ListedCheckpoint
from retfound_dist.io import storage, verified_files
from retfound_dist.io.retry import Patience, call_with_retries, is_transient

T = TypeVar("T")
Say = Callable[[str], None]
ReadRun = Callable[..., Any]
"""`read_with_retries` for one run."""
Resume = Literal["auto", "none"] | int
"""The values of `run.resume`."""
NO_STATE = "it holds weights only: its training state was removed, or was not copied"
# If a local disk fails now, a retry rarely helps.
LOCAL_PATIENCE_S = 5.0
"""Longest time for retries on a local disk, in seconds."""
MAX_LISTED = 4
"""Damaged checkpoints that one message names."""


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint from which a start resumes, and two fields of the checkpoints that it will write."""

    commit: Commit | None = None
    """None: from the beginning."""
    generation: int = 0
    """`Commit.generation` of the new checkpoints."""
    chosen: str = ""
    """`Commit.chosen` of the new checkpoints."""


FROM_THE_BEGINNING = ResumePoint()


@dataclass(frozen=True)
class LaunchJob:
    """Names of the Slurm or torchrun job of a start, so that `run.resume` is applied only once in each job.

    Slurm and torchrun restart a job with the same command. Otherwise a job with `run.resume=none` would begin
    at step 0 each time.
    """

    names: tuple[str, ...] = ()
    """Written into this start's checkpoints."""
    restarted: tuple[str, ...] = ()
    """The names whose job may have had an earlier start."""

    def resume_record(self, resume: Resume) -> str:
        """`Commit.chosen` of this start's checkpoints: the value of `run.resume` and the job's names."""
        return "" if resume == "auto" else " ".join([str(resume), *self.names])

    def already_resumed(self, resume: Resume, record: str) -> bool:
        """Whether an earlier start of this job with the same `run.resume` wrote this `Commit.chosen`."""
        applied, *names = record.split(" ")
        return applied == str(resume) and bool(set(names) & set(self.restarted))


def read_job(env: Mapping[str, str], launcher: int) -> LaunchJob:
    """The job of this start: Slurm can requeue it, torchrun can restart its ranks.

    `launcher`: torchrun's process number; 0: there is none.
    """
    names, restarted = [], []
    if number := env.get("SLURM_JOB_ID", ""):
        names.append(f"slurm:{number}")
        if env.get("SLURM_RESTART_COUNT", "0") not in ("", "0"):
            restarted.append(names[-1])
    if launcher > 0:
        with suppress(OSError, IndexError), open(f"/proc/{launcher}/stat") as file:
            # With its start time (field 22, ticks since boot), because process numbers are reused.
            began = file.read().rpartition(")")[2].split()[19]
            names.append(f"torchrun:{platform.node()}:{launcher}:{began}")
            restarted.append(names[-1])
    return LaunchJob(tuple(names), tuple(restarted))


UNKNOWN_JOB = LaunchJob()


def choose_checkpoint(
    run_url: str, resume: Resume, say: Say, patience_s: float, job: LaunchJob = UNKNOWN_JOB
) -> ResumePoint:
    """Choose the checkpoint to resume from; `say` shows the skipped ones.

    A store that does not answer is tried for `patience_s`, then StorageError: the checkpoints may be good.
    CheckpointError if there are checkpoints but none can be used, or not that of the requested step.
    """
    read_run = partial(read_with_retries, run_url, patience_s)
    checkpoints = read_run(f"the checkpoints of {run_url}", partial(_list_newest_first, run_url))
    commits = [checkpoint.commit for checkpoint in checkpoints if checkpoint.commit]
    if resume == "auto" or any(job.already_resumed(resume, commit.chosen) for commit in commits):
        commit = _newest_usable(run_url, checkpoints, say, read_run)
    elif resume == "none":
        commit = None
    else:
        commit = _requested_step(run_url, resume, checkpoints, read_run)
    chosen_age = (commit.generation, commit.step) if commit else None
    newer = [checkpoint for checkpoint in checkpoints if chosen_age is None or checkpoint.age > chosen_age]
    if resume != "auto" and newer:
        where, skipped = f"step {commit.step}" if commit else "the beginning", _list_steps(newer)
        say(f"resuming from {where} (run.resume={resume}); newer checkpoints are skipped: {skipped}")
    # Higher after going back, so that the new checkpoints count as newer than those of higher steps.
    generation = max((checkpoint.generation for checkpoint in checkpoints), default=0) + bool(newer)
    return ResumePoint(commit, generation, job.resume_record(resume))


def is_finished(run_url: str, steps: int, resume: Resume = "auto") -> bool:
    """Whether the run has a checkpoint of its last step, judged by its commit and the size of its weights."""
    # Its files are not read: `choose_checkpoint` does that for a run that is not finished.
    if resume not in ("auto", steps) or steps not in checkpoint_folder.list_steps(run_url):
        return False
    checkpoints = _list_newest_first(run_url)
    last = checkpoints[0] if resume == "auto" else next(c for c in checkpoints if c.step == steps)
    commit = last.commit
    if last.step != steps or commit is None:
        return False
    try:
        weights = commit.weights
        return storage.size(storage.join(commit.url, weights)) == commit.files[weights].bytes
    except CheckpointError:
        return False
    except StorageError as error:
        if verified_files.is_missing(error):
            return False
        raise


def _newest_usable(
    run_url: str, checkpoints: Sequence[ListedCheckpoint], say: Say, read_run: ReadRun
) -> Commit | None:
    """The newest undamaged checkpoint; None if the run has no checkpoints."""
    unusable = []
    for checkpoint in checkpoints:
        reason = _reason_unusable(checkpoint, read_run)
        if not reason:
            return checkpoint.commit
        # `checkpoint.keep_last` removes the state of old checkpoints: that needs no message.
        if reason != NO_STATE:
            say(f"skipping the checkpoint of step {checkpoint.step}: {reason}")
        unusable.append(f"step {checkpoint.step}: {reason}")
    if not checkpoints:
        return None
    more = f"; and {len(unusable) - MAX_LISTED} more" if len(unusable) > MAX_LISTED else ""
    raise CheckpointError(
        f"{run_url} has checkpoints, but none can be used ({'; '.join(unusable[:MAX_LISTED])}{more}): "
        "restore their files and start again; or begin at step 0 with run.resume=none, which keeps each "
        "checkpoint until its step is saved again"
    )


def _requested_step(
    run_url: str, step: int, checkpoints: Sequence[ListedCheckpoint], read_run: ReadRun
) -> Commit:
    """The checkpoint of the requested step."""
    checkpoint = next((c for c in checkpoints if c.step == step), None)
    reason = _reason_unusable(checkpoint, read_run) if checkpoint else "there is none"
    if checkpoint and checkpoint.commit and not reason:
        return checkpoint.commit
    others = [other for other in checkpoints if other.commit and other.commit.state and other.step != step]
    instead = f"those with a training state are of {_list_steps(others)}" if others else "there is no other"
    raise CheckpointError(
        f"run.resume={step}: {run_url} has no usable checkpoint of this step ({reason}); {instead}"
    )


def _list_newest_first(run_url: str) -> list[ListedCheckpoint]:
    """All checkpoints of the run; FormatError if a later version wrote one."""
    return checkpoint_folder.list_commits(run_url, (CheckpointError,))[::-1]


def _reason_unusable(checkpoint: ListedCheckpoint, read_run: ReadRun) -> str:
    """Why a checkpoint cannot be used; empty if it can. Reads all its files."""
    commit = checkpoint.commit
    if commit is None:
        return str(checkpoint.fault)
    if not commit.state:
        return NO_STATE
    for name, info in commit.files.items():
        where = storage.join(commit.url, name)
        if difference := read_run(
            f"the checkpoint of step {commit.step}", partial(verified_files.difference_from, where, info)
        ):
            return f"{where} differs from its commit: {difference}"
    return ""


def read_with_retries(url: str, patience_s: float, subject: str, read: Callable[[], T]) -> T:
    """Read from the store, with retries for `patience_s`. StorageError names the `subject` if that fails."""
    patience = Patience(url, min(LOCAL_PATIENCE_S, patience_s) if storage.is_local(url) else patience_s)
    try:
        return call_with_retries(read, patience, lambda error: not is_transient(error.__cause__ or error))
    except MemoryError as error:
        raise StorageError(
            f"{subject} cannot be read: this machine has too little free memory; no checkpoint is skipped "
            "for that: end other programs, or start on another machine"
        ) from error
    except (StorageError, OSError) as error:
        raise StorageError(
            f"{subject} cannot be read: {error}; no checkpoint is skipped for that: fix the cause and start "
            "again, or choose another checkpoint with run.resume=STEP"
        ) from error


def _list_steps(checkpoints: Sequence[ListedCheckpoint]) -> str:
    """Such as `3 steps, 2, 4, 6`; only the newest of many."""
    steps = sorted(checkpoint.step for checkpoint in checkpoints)
    which = "the newest of them " if len(steps) > 2 * MAX_LISTED else ""
    newest = ", ".join(map(str, steps[-2 * MAX_LISTED :]))
    return f"{len(steps)} steps, {which}{newest}" if len(steps) > 1 else f"step {newest}"
