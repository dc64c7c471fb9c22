"""The lock of a run's folder (`records.folder_lock`): one writer a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from retfound_dist.errors import RecordError, RunConflictError, StorageError
from retfound_dist.io import storage, verified_files
from retfound_dist.records import json_reader
from retfound_dist.records.folder_lock import LOCK, FolderLock, Holder, is_same_id


class RunLock(FolderLock):
    """The lock of one run, for rank 0; a requeued job takes over the lock of its earlier start at once."""

    def __init__(self, run_url: str, say: Callable[[str], None]) -> None:
        super().__init__(run_url, say, lambda holder: _conflict_error(run_url, holder), os.environ)

    @property
    def id(self) -> str:
        """Identifies this holder's lock."""
        return self._own_holder.id


def has_lost(run_url: str, lock_id: str) -> bool:
    """Whether another start now holds the run's lock; reads it from the store.

    A lock that is missing or damaged belongs to nobody.
    """
    # Read twice: after a read with a flipped bit this start would give up a lock that it still holds.
    return all((holder := _holder_id(run_url)) and not is_same_id(holder, lock_id) for _ in range(2))


def _holder_id(run_url: str) -> str:
    """The id in the run's lock; empty where there is no lock or it cannot be read."""
    try:
        return str(json_reader.read(storage.join(run_url, LOCK), dict[str, Any], "").get("id", ""))
    except RecordError:
        return ""
    except StorageError as error:
        if verified_files.is_missing(error):
            return ""
        raise


def _conflict_error(run_url: str, holder: Holder | None) -> RunConflictError:
    holder_text = holder.description if holder else "another process, which removed its LOCK.json"
    return RunConflictError(
        f"{run_url} is being run by {holder_text}: wait for it or stop it, or set another run.url"
    )
