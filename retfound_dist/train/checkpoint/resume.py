"""Chooses the checkpoint that a start goes on from: the newest that is whole, or what `run.resume` says.

A checkpoint is passed over only when it is damaged: its commit or a file of it, read several times from the
store, is not what was committed. A store that fails, a disk that is full or cannot be read, a missing right
and too little memory say nothing about a checkpoint: they end the start. So does a run whose checkpoints are
all damaged: it begins again only where `run.resume=none` says so.
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
from retfound_dist.formats.checkpoint_folder import Commit, FoundCheckpoint
from retfound_dist.io import storage, verified_files
from retfound_dist.io.retry import Patience, call_with_retries, is_transient

T = TypeVar("T")
Say = Callable[[str], None]
Ask = Callable[..., Any]
Resume = Literal["auto", "none"] | int
"""As `run.resume`."""
NO_STATE = "it holds weights only: its training state was removed, or never copied here"
# What a local disk cannot read now it can rarely read later.
LOCAL_S = 5.0
"""Most seconds for which a local disk is tried again."""
SHOWN = 4
"""Damaged checkpoints that one line names."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a start goes on, and what its own checkpoints are to say of it."""

    held: Commit | None = None
    """None: from the beginning."""
    generation: int = 0
    """`Commit.generation` of its checkpoints."""
    chosen: str = ""
    """`Commit.chosen` of its checkpoints."""


FROM_THE_BEGINNING = ResumePoint()


@dataclass(frozen=True)
class ResumeOnce:
    """Names of the job that a start belongs to, for `run.resume` to be obeyed once in each job.

    Slurm and torchrun start a job again by the same command. A job that began with `run.resume=none` would
    otherwise begin again from step 0 each time.
    """

    names: tuple[str, ...] = ()
    """For this start's checkpoints."""
    known: tuple[str, ...] = ()
    """Those of which an earlier start may have saved checkpoints."""

    def chosen(self, resume: Resume) -> str:
        """`Commit.chosen` of this start's checkpoints: what `run.resume` says, and the job's names."""
        return "" if resume == "auto" else " ".join([str(resume), *self.names])

    def has_obeyed(self, resume: Resume, chosen: str) -> bool:
        """Whether an earlier start of this job saved the checkpoint, and `run.resume` told it the same."""
        obeyed, *names = chosen.split(" ")
        return obeyed == str(resume) and bool(set(names) & set(self.known))


def job_of(env: Mapping[str, str], launcher: int) -> ResumeOnce:
    """This start's job: Slurm's, which may be queued again, and the torchrun that starts ranks again.

    `launcher`: torchrun's process number; 0: there is none.
    """
    names, known = [], []
    if number := env.get("SLURM_JOB_ID", ""):
        names.append(f"slurm:{number}")
        if env.get("SLURM_RESTART_COUNT", "0") not in ("", "0"):
            known.append(names[-1])
    if launcher > 0:
        with suppress(OSError, IndexError), open(f"/proc/{launcher}/stat") as file:
            # With its start time (field 22, ticks since boot): process numbers are given out again.
            began = file.read().rpartition(")")[2].split()[19]
            names.append(f"torchrun:{platform.node()}:{launcher}:{began}")
            known.append(names[-1])
    return ResumeOnce(tuple(names), tuple(known))


NO_JOB = ResumeOnce()


def choose_checkpoint(
    run_url: str, resume: Resume, say: Say, patience_s: float, job: ResumeOnce = NO_JOB
) -> ResumePoint:
    """The checkpoint to go on from; `say` tells of those that are passed over.

    A store that does not answer is asked for `patience_s`, then StorageError: the checkpoints may be good.
    CheckpointError where there are checkpoints and none can be used, or not the one that was asked for.
    """
    asking = partial(ask, run_url, patience_s)
    checkpoints = asking(f"the checkpoints of {run_url}", partial(_newest_first, run_url))
    if resume == "auto" or any(one.held and job.has_obeyed(resume, one.held.chosen) for one in checkpoints):
        choice = _newest(run_url, checkpoints, say, asking)
    elif resume == "none":
        choice = ResumePoint()
    else:
        choice = ResumePoint(_of_step(run_url, resume, checkpoints, asking))
    commit = choice.held
    newer = [one for one in checkpoints if commit is None or one.age > (commit.generation, commit.step)]
    if resume != "auto" and newer:
        where = f"step {commit.step}" if commit else "the beginning"
        say(f"from {where}, as run.resume={resume} says; checkpoints passed over for it: {_steps(newer)}")
    # A start that goes back raises it, so that its checkpoints count as newer than those of higher steps.
    generation = max((one.generation for one in checkpoints), default=0) + bool(newer)
    return ResumePoint(commit, generation, job.chosen(resume))


def is_finished(run_url: str, steps: int, resume: Resume = "auto") -> bool:
    """Whether the run has a checkpoint of its last step, as far as its commit and the size of its weights
    tell."""
    # No file is read: `choose_checkpoint` does that where there is something left to do, and tells of damage.
    if resume not in ("auto", steps) or steps not in checkpoint_folder.list_steps(run_url):
        return False
    checkpoints = _newest_first(run_url)
    last = checkpoints[0] if resume == "auto" else next(one for one in checkpoints if one.step == steps)
    if last.step != steps or last.held is None:
        return False
    try:
        weights = last.held.weights
        return storage.size(storage.join(last.held.url, weights)) == last.held.files[weights].bytes
    except CheckpointError:
        return False
    except StorageError as error:
        if verified_files.is_missing(error):
            return False
        raise


def _newest(run_url: str, checkpoints: Sequence[FoundCheckpoint], say: Say, asking: Ask) -> ResumePoint:
    """The newest checkpoint that is whole."""
    bad = []
    for checkpoint in checkpoints:
        reason = _why_unusable(checkpoint, asking)
        if not reason:
            return ResumePoint(checkpoint.held)
        # Old checkpoints without a state are as `checkpoint.keep_last` leaves them: nothing to tell.
        if reason != NO_STATE:
            say(f"passing over the checkpoint of step {checkpoint.step}: {reason}")
        bad.append(f"step {checkpoint.step}: {reason}")
    if not checkpoints:
        return ResumePoint()
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise CheckpointError(
        f"{run_url} has checkpoints, and none can be used ({'; '.join(bad[:SHOWN])}{more}): bring back their "
        "files and start again; or begin again from step 0 with run.resume=none, which leaves each as it is "
        "until its step is saved again"
    )


def _of_step(run_url: str, step: int, checkpoints: Sequence[FoundCheckpoint], asking: Ask) -> Commit:
    """The checkpoint of the step that was asked for."""
    checkpoint = next((one for one in checkpoints if one.step == step), None)
    reason = _why_unusable(checkpoint, asking) if checkpoint else "there is none"
    if checkpoint and checkpoint.held and not reason:
        return checkpoint.held
    others = [other for other in checkpoints if other.held and other.held.state and other.step != step]
    instead = f"those with a training state are of {_steps(others)}" if others else "there is no other"
    raise CheckpointError(f"run.resume={step}: {run_url} has no such checkpoint to use ({reason}); {instead}")


def _newest_first(run_url: str) -> list[FoundCheckpoint]:
    """Every commit of the run; FormatError where a later version wrote one."""
    return checkpoint_folder.list_commits(run_url, (CheckpointError,))[::-1]


def _why_unusable(checkpoint: FoundCheckpoint, asking: Ask) -> str:
    """Why a checkpoint cannot be used; empty where it can. Reads every file of it."""
    commit = checkpoint.held
    if commit is None:
        return str(checkpoint.fault)
    if not commit.state:
        return NO_STATE
    for name, info in commit.files.items():
        where = storage.join(commit.url, name)
        if difference := asking(
            f"the checkpoint of step {commit.step}", partial(verified_files.difference_from, where, info)
        ):
            return f"{where} differs from its commit: {difference}"
    return ""


def ask(url: str, patience_s: float, what: str, question: Callable[[], T]) -> T:
    """Ask the store, again and again for `patience_s`; StorageError where it, or this machine, gives no
    answer."""
    patience = Patience(url, min(LOCAL_S, patience_s) if storage.is_local(url) else patience_s)
    try:
        return call_with_retries(question, patience, lambda error: not is_transient(error.__cause__ or error))
    except MemoryError as error:
        raise StorageError(
            f"{what} cannot be read: this machine's memory is too short; nothing is passed over for it: "
            "end what else runs here, or start on another machine"
        ) from error
    except (StorageError, OSError) as error:
        raise StorageError(
            f"{what} cannot be read: {error}; nothing is passed over for it: start again when "
            "that is mended, or name another checkpoint with run.resume=STEP"
        ) from error


def _steps(checkpoints: Sequence[FoundCheckpoint]) -> str:
    """`3 steps, 2, 4, 6`; of many only the newest."""
    steps = sorted(one.step for one in checkpoints)
    many = "the newest of them " if len(steps) > 2 * SHOWN else ""
    shown = ", ".join(map(str, steps[-2 * SHOWN :]))
    return f"{len(steps)} steps, {many}{shown}" if len(steps) > 1 else f"step {shown}"
