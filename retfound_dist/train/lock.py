"""One run, one writer: the lock of a run's folder (`retfound_dist.locks`), and what a second run is told."""

from __future__ import annotations

import os
from collections.abc import Callable

from retfound_dist.errors import RunConflictError
from retfound_dist.locks import FolderLock, Holder


class RunLock(FolderLock):
    """The lock of one run, for rank 0; a requeued job follows its earlier start at once."""

    def __init__(self, run_url: str, say: Callable[[str], None]) -> None:
        super().__init__(run_url, say, lambda held: _conflict(run_url, held), os.environ)


def _conflict(run_url: str, held: Holder | None) -> RunConflictError:
    who = held.described if held else "another process, which took its LOCK.json away"
    return RunConflictError(
        f"{run_url} is being run by {who}: wait for it or stop it, or give this run a run.url of its own"
    )
