"""The end of a save, when all ranks' files are there: weights, commit, and what is no longer needed goes.

Rank 0's uploads does it. A checkpoint exists from its COMMIT.json on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from retfound_dist.config.schema import Checkpoint
from retfound_dist.errors import CheckpointError, FormatError, RunConflictError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.io import storage
from retfound_dist.io.retry import Patience
from retfound_dist.io.scratch import temporary
from retfound_dist.io.storage import FileInfo
from retfound_dist.train.checkpoint.merge_weights import Shapes, write_merged_weights
from retfound_dist.train.health.run_lock import has_lost
from retfound_dist.train.ranks import upload_process

TIDY_S = 30.0
"""Seconds for which removing old files is tried again; the next save tries anew."""


@dataclass(frozen=True)
class CheckpointToFinalize:
    """What is left to do of one save."""

    run_url: str
    held: Commit
    """All but the weights' file."""
    mark: str
    """Of this save's names."""
    parts: list[FileInfo]
    """Of the weights, by rank."""
    shapes: Shapes
    fixed: str
    scratch: str
    settings: Checkpoint
    lock_id: str = ""
    """Who has to hold the run's lock when this is committed; empty: nobody."""


def finalize_checkpoint(job: CheckpointToFinalize) -> None:
    """Put the weights together, commit, then let go of what is no longer needed."""
    held, patience = job.held, Patience(job.held.url, job.settings.patience_s)
    with temporary(job.scratch) as scratch:
        made = upload_process.retry_with_patience(
            lambda: write_merged_weights(held.url, job.mark, job.parts, job.shapes, job.fixed, scratch),
            patience,
        )
    patience.succeeded()
    whole = replace(held, files=held.files | made)
    upload_process.retry_with_patience(lambda: _commit(job, whole), patience)
    try:
        upload_process.retry_with_patience(
            lambda: prune(job.run_url, job.settings, held.step),
            Patience(held.url, min(TIDY_S, job.settings.patience_s)),
        )
    except StorageError as error:  # the checkpoint is good all the same
        print(
            f"retfound: step {held.step} is saved, but older files could not be removed: {error}",
            file=sys.stderr,
        )


def _commit(job: CheckpointToFinalize, whole: Commit) -> None:
    """Write the commit, unless another start has the run by now: then its checkpoints count."""
    if job.lock_id and has_lost(job.run_url, job.lock_id):
        raise RunConflictError(f"{job.run_url} is being run by another start: step {whole.step} is not saved")
    checkpoint_folder.write_commit(whole)


def prune(run_url: str, keep: Checkpoint, newest: int) -> None:
    """Remove the training state of old checkpoints, and whatever saves left that no commit names.

    The newest `keep_last` states up to step `newest`, which has just been committed, stay, and all weights,
    so that every checkpoint can still be evaluated. What stands beyond that step was passed over when the run
    was resumed: it is left alone, and counts for nothing. A commit is rewritten before its state goes. What
    could not be removed once is removed the next time.
    """
    steps = [each.step for each in checkpoint_folder.by_age(run_url) if each.step <= newest]
    for step in steps:
        kept = step in steps[-keep.keep_last :] or (
            keep.keep_every_steps and step % keep.keep_every_steps == 0
        )
        _tidy(checkpoint_folder.checkpoint_url(run_url, step), bool(kept))


def _tidy(url: str, kept: bool) -> None:
    """One committed checkpoint's folder; `kept`: with its training state. A damaged commit is left alone."""
    names = storage.list_names(url)
    if set(names) <= {checkpoint_folder.COMMIT, checkpoint_folder.WEIGHTS}:
        return
    try:
        held = checkpoint_folder.read_commit(url)
    except (CheckpointError, FormatError):
        return
    if held.state and not kept:
        files = {name: info for name, info in held.files.items() if name not in held.state}
        held = replace(held, files=files)
        checkpoint_folder.write_commit(held)
    for name in checkpoint_folder.spare_names(held, names):
        storage.delete(storage.join(url, name))
