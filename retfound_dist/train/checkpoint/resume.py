"""Which checkpoint a start goes on from: the newest that is whole, or what `run.resume` says.

A checkpoint is passed over only when it is damaged: when its commit or a file of it, read several times from
the store, is not what was committed. A store that fails, a full disk, one that cannot be read, a missing
right and short memory say nothing about a checkpoint: they end the start. So does a run that has checkpoints
of which none can be used: nobody wants its first step again who has not said so.
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
from retfound_dist.formats.checkpoint_folder import Commit, Found
from retfound_dist.io import storage, verified_files
from retfound_dist.io.retry import Patience, is_passing
from retfound_dist.io.slow_store import limited

T = TypeVar("T")
Say = Callable[[str], None]
Ask = Callable[..., Any]
Resume = Literal["auto", "none"] | int
"""As `run.resume`."""
NO_STATE = "it holds weights only: its training state was removed, or never copied here"
LOCAL_S = 5.0
"""Longest patience with a local disk: what it cannot read now it can rarely read later."""
SHOWN = 4
"""Damaged checkpoints that one line names."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a start goes on."""

    held: Commit | None = None
    """None: from the beginning."""
    generation: int = 0
    """What its checkpoints are to say."""
    chosen: str = ""
    """The same."""


FROM_THE_BEGINNING = ResumePoint()


@dataclass(frozen=True)
class ResumeOnce:
    """What a start and its restarts share, where `run.resume` was obeyed once and is not to be again."""

    names: tuple[str, ...] = ()
    """For this start's checkpoints."""
    known: tuple[str, ...] = ()
    """Of these an earlier start may be known."""

    def chosen(self, resume: Resume) -> str:
        """What checkpoints say that were saved as `run.resume` says."""
        return "" if resume == "auto" else " ".join([str(resume), *self.names])

    def has_obeyed(self, resume: Resume, chosen: str) -> bool:
        """Whether an earlier start of this job saved the checkpoint, and `run.resume` told it the same."""
        told, *names = chosen.split(" ")
        return told == str(resume) and bool(set(names) & set(self.known))


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
            began = file.read().rpartition(")")[2].split()[19]
            names.append(f"torchrun:{platform.node()}:{launcher}:{began}")
            known.append(names[-1])
    return ResumeOnce(tuple(names), tuple(known))


NO_JOB = ResumeOnce()


def choose(
    run_url: str, resume: Resume, say: Say, patience_s: float, job: ResumeOnce = NO_JOB
) -> ResumePoint:
    """The checkpoint to go on from; what is passed over is said.

    A store that does not answer is asked for `patience_s`, then StorageError: the checkpoints may be good.
    CheckpointError where there are checkpoints and none can be used, or not the one that was asked for.
    """
    asking = partial(ask, run_url, patience_s)
    found = asking(f"the checkpoints of {run_url}", partial(_newest_first, run_url))
    if resume == "auto" or any(each.held and job.has_obeyed(resume, each.held.chosen) for each in found):
        choice = _newest(run_url, found, say, asking)
    elif resume == "none":
        choice = ResumePoint()
    else:
        choice = ResumePoint(_that(run_url, resume, found, asking))
    held = choice.held
    behind = [each for each in found if held is None or each.age > (held.generation, held.step)]
    if resume != "auto" and behind:
        where = f"step {held.step}" if held else "the beginning"
        say(f"from {where}, as run.resume={resume} says; checkpoints passed over for it: {_steps(behind)}")
    generation = max((each.generation for each in found), default=0) + bool(behind)
    return ResumePoint(held, generation, job.chosen(resume))


def is_finished(run_url: str, steps: int, resume: Resume = "auto") -> bool:
    """Whether the run has a checkpoint of its last step to go on from, as far as commits tell.

    Damage is no end: what the start then finds is said by `choose`.
    """
    if resume not in ("auto", steps) or steps not in checkpoint_folder.list_steps(run_url):
        return False
    found = _newest_first(run_url)
    last = found[0] if resume == "auto" else next(each for each in found if each.step == steps)
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


def _newest(run_url: str, found: Sequence[Found], say: Say, asking: Ask) -> ResumePoint:
    """The newest that is whole."""
    bad = []
    for each in found:
        why = _why_not(each, asking)
        if not why:
            return ResumePoint(each.held)
        if why != NO_STATE:
            say(f"passing over the checkpoint of step {each.step}: {why}")
        bad.append(f"step {each.step}: {why}")
    if not found:
        return ResumePoint()
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise CheckpointError(
        f"{run_url} has checkpoints, and none can be used ({'; '.join(bad[:SHOWN])}{more}): bring back their "
        "files and start again; or begin again from step 0 with run.resume=none, which leaves each as it is "
        "until its step is saved again"
    )


def _that(run_url: str, step: int, found: Sequence[Found], asking: Ask) -> Commit:
    """The checkpoint of the step that was asked for."""
    each = next((each for each in found if each.step == step), None)
    why = _why_not(each, asking) if each else "there is none"
    if each and each.held and not why:
        return each.held
    others = [other for other in found if other.held and other.held.state and other.step != step]
    instead = f"those with a training state are of {_steps(others)}" if others else "there is no other"
    raise CheckpointError(f"run.resume={step}: {run_url} has no such checkpoint to use ({why}); {instead}")


def _newest_first(run_url: str) -> list[Found]:
    """Every commit of the run; FormatError where a later version wrote one."""
    return checkpoint_folder.by_age(run_url, (CheckpointError,))[::-1]


def _why_not(each: Found, asking: Ask) -> str:
    """Why a checkpoint cannot be used; empty where it can."""
    held = each.held
    if held is None:
        return str(each.fault)
    if not held.state:
        return NO_STATE
    for name, info in held.files.items():
        where = storage.join(held.url, name)
        if why := asking(
            f"the checkpoint of step {held.step}", partial(verified_files.why_differs, where, info)
        ):
            return f"{where} differs from its commit: {why}"
    return ""


def ask(url: str, patience_s: float, what: str, question: Callable[[], T]) -> T:
    """An answer of the store; StorageError where it, or this machine, gives none."""
    patience = Patience(url, min(LOCAL_S, patience_s) if storage.is_local(url) else patience_s)
    while True:
        try:
            with limited(url, patience.seconds):
                return question()
        except MemoryError as error:
            raise StorageError(
                f"{what} cannot be read: this machine's memory is too short; nothing is passed over for it: "
                "end what else runs here, or start on another machine"
            ) from error
        except (StorageError, OSError) as error:
            lasting = not is_passing(error.__cause__ or error)
            if lasting or not patience.wait(error):
                tried = "" if lasting else f" (tried for {patience.seconds:.0f} s)"
                raise StorageError(
                    f"{what} cannot be read: {error}{tried}; nothing is passed over for it: start again when "
                    "that is mended, or name another checkpoint with run.resume=STEP"
                ) from error


def _steps(found: Sequence[Found]) -> str:
    """`steps 2, 4 and 6`; the newest of many."""
    steps = sorted(each.step for each in found)
    many = "the newest of them " if len(steps) > 2 * SHOWN else ""
    shown = ", ".join(map(str, steps[-2 * SHOWN :]))
    return f"{len(steps)} steps, {many}{shown}" if len(steps) > 1 else f"step {shown}"
