"""Searches the folders below a URL for runs, damaged runs, and folders that only look like a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from retfound_dist.errors import StorageError
from retfound_dist.formats import run_folder, run_summary, url_kinds
from retfound_dist.formats.shard_set import MANIFEST
from retfound_dist.io import storage

DEPTH = 3
"""Levels of folders below the URL in which runs are searched."""
RUN_FILES = {run_folder.METRICS, run_folder.EVENTS, "checkpoints"}
"""What a run's folder has beside its config, and no other program's folder has together."""


@dataclass(frozen=True)
class Fault:
    """A folder that cannot be shown as a run."""

    url: str
    reason: str
    is_run: bool = False
    """Whether it is a damaged run of this program. Lists show such a run in a row."""

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.url} {self.reason}"


@dataclass
class RunSearch:
    """The result of a search, in order."""

    runs: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    """Folders that are damaged, that cannot be read, or whose config.json belongs to something else."""


def search_runs(url: str, depth: int = DEPTH) -> RunSearch:
    """The runs at or below a URL; folders inside runs and shard sets are not searched."""
    result = RunSearch()
    real = os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url
    _search(url, real, depth, result, set())
    return result


def find_runs(url: str, depth: int = DEPTH) -> list[str]:
    """URLs of the runs at or below a URL, in order."""
    return search_runs(url, depth).runs


def _search(url: str, real: str, depth: int, result: RunSearch, visited: set[str]) -> None:
    """Search one folder; `real`: its real path; `visited`: the real paths so far."""
    # By real path: a link to a folder above would be followed forever.
    if real in visited:
        return
    visited.add(real)
    try:
        names = set(storage.list_names(url))
        has_config = run_folder.CONFIG in names
        # A run with a summary is not checked here: its reader checks it, and would read config.json again.
        is_run = run_summary.SUMMARY in names and len(RUN_FILES & names) > 1
        reason = url_kinds.not_run_reason(url) if has_config and not is_run else ""
        if has_config and not reason:
            result.runs.append(url)
            return
        if damage := _damage(names, reason):
            result.faults.append(Fault(url, damage, is_run=True))
            return
        if has_config:
            result.faults.append(Fault(url, f"is not a run: {reason}"))
        # A shard set has many files and no runs.
        if depth == 0 or MANIFEST in names:
            return
        folders = storage.list_folders(url) if names else []
    except StorageError as error:
        result.faults.append(Fault(url, f"cannot be searched: {error}"))
        return
    for name in folders:
        if not name.startswith("."):
            folder = storage.join(url, name)
            _search(folder, _real_path(folder, real, name), depth - 1, result, visited)


def _real_path(url: str, real_parent: str, name: str) -> str:
    """The real path of a folder, whose parent's real path is known; on a store its URL."""
    if not storage.is_local(url):
        return url
    # Only a link can lead elsewhere. `realpath` would ask for every part of the path again.
    path = os.path.join(real_parent, name)
    return os.path.realpath(path) if os.path.islink(path) else path


def _damage(names: set[str], reason: str) -> str:
    """What is wrong with a run's folder that has no readable config; empty where it is not a run's folder."""
    run_files = sorted(RUN_FILES & names)
    # One such name alone, such as `checkpoints`, is common in the folders of other programs.
    if len(run_files) < 2:
        return ""
    return "is a damaged run: " + (reason or f"it has {' and '.join(run_files)}, and no config.json")
