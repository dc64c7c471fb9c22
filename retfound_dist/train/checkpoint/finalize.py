"""The end of a save, when all ranks' files are there: merge the weights, commit, remove what is old.

Rank 0's upload process does it. A checkpoint exists from its COMMIT.json on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from retfound_dist.config.schema import Checkpoint
from retfound_dist.errors import CheckpointError, FormatError, RunConflictError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.io import storage
from retfound_dist.io.retry import Patience, call_with_retries
from retfound_dist.io.scratch import temporary
from retfound_dist.io.storage import FileInfo
from retfound_dist.train.checkpoint.merge_weights import Shapes, write_merged_weights
from retfound_dist.train.health.run_lock import has_lost

# Short, for the checkpoint is good without it, and the next save removes what was left.
TIDY_S = 30.0
"""Seconds for which removing old files is tried again."""


@dataclass(frozen=True)
class CheckpointToFinalize:
    """What is left to do of one save."""

    run_url: str
    commit: Commit
    """Names all files but that of the weights."""
    mark: str
    """Of this save's names."""
    parts: list[FileInfo]
    """Of the weights, by rank."""
    shapes: Shapes
    untrained: str
    """A local file with the untrained tensors."""
    scratch: str
    settings: Checkpoint
    lock_id: str = ""
    """Who has to hold the run's lock when this is committed; empty: nobody."""


def finalize_checkpoint(job: CheckpointToFinalize) -> None:
    """Merge the weights, commit, then remove what is no longer needed."""
    commit, patience = job.commit, Patience(job.commit.url, job.settings.patience_s)
    with temporary(job.scratch) as scratch:
        weights = call_with_retries(
            lambda: write_merged_weights(commit.url, job.mark, job.parts, job.shapes, job.untrained, scratch),
            patience,
        )
    patience.succeeded()
    whole = replace(commit, files=commit.files | weights)
    call_with_retries(lambda: _commit(job, whole), patience)
    # Only after the commit: until then the older checkpoint is the good one, and loses nothing.
    try:
        call_with_retries(
            lambda: prune(job.run_url, job.settings, commit.step),
            Patience(commit.url, min(TIDY_S, job.settings.patience_s)),
        )
    except StorageError as error:  # the checkpoint is good all the same
        print(
            f"retfound: step {commit.step} is saved, but older files could not be removed: {error}",
            file=sys.stderr,
        )


def _commit(job: CheckpointToFinalize, whole: Commit) -> None:
    """Write the commit, unless another start has the run by now: then its checkpoints count."""
    # As late as can be. A start that was thought dead and wakes up must not replace the checkpoints of its
    # successor.
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
    steps = [each.step for each in checkpoint_folder.list_commits(run_url) if each.step <= newest]
    for step in steps:
        keeps_state = step in steps[-keep.keep_last :] or (
            keep.keep_every_steps and step % keep.keep_every_steps == 0
        )
        _tidy(checkpoint_folder.checkpoint_url(run_url, step), bool(keeps_state))


def _tidy(url: str, keeps_state: bool) -> None:
    """Remove from a checkpoint's folder what its commit does not name, and its state unless `keeps_state`.

    The folder of a damaged commit is left alone.
    """
    names = storage.list_names(url)
    # Most old checkpoints are tidied already: listing a folder spares reading its commit.
    if set(names) <= {checkpoint_folder.COMMIT, checkpoint_folder.WEIGHTS}:
        return
    try:
        commit = checkpoint_folder.read_commit(url)
    except (CheckpointError, FormatError):
        return
    if commit.state and not keeps_state:
        files = {name: info for name, info in commit.files.items() if name not in commit.state}
        commit = replace(commit, files=files)
        # Before the files go: a commit that names a file which is gone is a damaged checkpoint.
        checkpoint_folder.write_commit(commit)
    for name in checkpoint_folder.leftover_names(commit, names):
        storage.delete(storage.join(url, name))
