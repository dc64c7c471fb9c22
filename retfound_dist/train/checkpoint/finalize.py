"""The end of a save, when the files of all ranks are uploaded: merge the weights, commit, remove old files.

Rank 0's upload process runs this. A checkpoint exists once its COMMIT.json is written.
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
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.io.storage import FileInfo
from retfound_dist.train.checkpoint.merge_weights import Shapes, write_merged_weights
from retfound_dist.train.health.run_lock import has_lost

# Short, because the checkpoint is complete without it, and the next save removes the rest.
CLEAN_UP_S = 30.0
"""Seconds for which removing old files is tried again."""


@dataclass(frozen=True)
class CheckpointToFinalize:
    """A save whose files are uploaded."""

    run_url: str
    commit: Commit
    """It names all files except the weights."""
    mark: str
    """Part of the names of this save's files."""
    parts: list[FileInfo]
    """The parts of the weights, by rank."""
    shapes: Shapes
    untrained: str
    """A local file with the untrained tensors."""
    scratch: str
    settings: Checkpoint
    lock_id: str = ""
    """The run's lock must have this id at the commit; empty: not checked."""


def finalize_checkpoint(save: CheckpointToFinalize) -> None:
    """Merge the weights, commit, then remove files that are no longer needed."""
    commit, patience = save.commit, Patience(save.commit.url, save.settings.patience_s)
    with new_temporary_folder(save.scratch) as scratch:
        weights = call_with_retries(
            lambda: write_merged_weights(
                commit.url, save.mark, save.parts, save.shapes, save.untrained, scratch
            ),
            patience,
        )
    patience.succeeded()
    complete_commit = replace(commit, files=commit.files | weights)
    call_with_retries(lambda: _commit(save, complete_commit), patience)
    # Only after the commit: until then the older checkpoint is the newest, and has to stay complete.
    try:
        call_with_retries(
            lambda: prune(save.run_url, save.settings, commit.step),
            Patience(commit.url, min(CLEAN_UP_S, save.settings.patience_s)),
        )
    except StorageError as error:  # not an error of the checkpoint, which is complete
        print(
            f"retfound: step {commit.step} is saved, but older files could not be removed: {error}",
            file=sys.stderr,
        )


def _commit(save: CheckpointToFinalize, complete_commit: Commit) -> None:
    """Write the commit; RunConflictError if another start now has the run's lock."""
    # As late as possible. A start that was assumed dead and continues must not replace the checkpoints of its
    # successor.
    if save.lock_id and has_lost(save.run_url, save.lock_id):
        raise RunConflictError(
            f"{save.run_url} is being run by another start: step {complete_commit.step} is not saved"
        )
    checkpoint_folder.write_commit(complete_commit)


def prune(run_url: str, settings: Checkpoint, last_step: int) -> None:
    """Remove the training state of old checkpoints, and files of saves that no commit names.

    `last_step` has just been committed. The newest `keep_last` states up to it are kept, and all weights, so
    that every checkpoint can be evaluated. Later steps were skipped when the run was resumed: they are
    neither changed nor counted. A commit is rewritten before its state is removed. Files that could not be
    removed are removed the next time.
    """
    steps = [each.step for each in checkpoint_folder.list_commits(run_url) if each.step <= last_step]
    for step in steps:
        keeps_state = step in steps[-settings.keep_last :] or (
            settings.keep_every_steps and step % settings.keep_every_steps == 0
        )
        _clean_up(checkpoint_folder.checkpoint_url(run_url, step), bool(keeps_state))


def _clean_up(url: str, keeps_state: bool) -> None:
    """Remove files of a checkpoint that its commit does not name, and its state unless `keeps_state`.

    The folder of a damaged commit is not changed.
    """
    names = storage.list_names(url)
    # Most old checkpoints are cleaned up already: after the listing, their commits need not be read.
    if set(names) <= {checkpoint_folder.COMMIT, checkpoint_folder.WEIGHTS}:
        return
    try:
        commit = checkpoint_folder.read_commit(url)
    except (CheckpointError, FormatError):
        return
    if commit.state and not keeps_state:
        files = {name: info for name, info in commit.files.items() if name not in commit.state}
        commit = replace(commit, files=files)
        # Before the files are removed: a commit that names a missing file is a damaged checkpoint.
        checkpoint_folder.write_commit(commit)
    for name in checkpoint_folder.leftover_names(commit, names):
        storage.delete(storage.join(url, name))
