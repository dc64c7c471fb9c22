"""Searches the folders below a URL for runs, for damaged runs, and for folders that only look like one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from retfound_dist.errors import StorageError
from retfound_dist.formats import run_folder, url_kinds
from retfound_dist.io import storage

DEPTH = 3
"""How many folders below the URL runs are looked for."""
MARKS = {run_folder.METRICS, run_folder.EVENTS, "checkpoints"}
"""What stands in a run's folder beside its config, and in no other program's."""


@dataclass(frozen=True)
class Fault:
    """A folder that cannot be shown as a run."""

    url: str
    why: str
    is_run: bool = False
    """Whether it is a run of ours that is damaged, and has a row in lists."""

    def __str__(self) -> str:
        """A line for a person."""
        return f"{self.url} {self.why}"


@dataclass
class FoundRuns:
    """What was found below a URL, in order."""

    runs: list[str] = field(default_factory=list)
    others: list[Fault] = field(default_factory=list)
    """Folders with a config.json of something else, that are damaged, or that cannot be read."""


def search_runs(url: str, depth: int = DEPTH) -> FoundRuns:
    """The runs at or below a URL; a run's own folders and shard sets are not looked into."""
    found = FoundRuns()
    _look(url, depth, found, set())
    return found


def find_runs(url: str, depth: int = DEPTH) -> list[str]:
    """URLs of the runs at or below a URL, in order."""
    return search_runs(url, depth).runs


def _look(url: str, depth: int, found: FoundRuns, seen: set[str]) -> None:
    """`seen`: the real folders so far: a link to one of them is not followed again, nor in a circle."""
    # A link to a folder above would be followed forever.
    real = os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url
    if real in seen:
        return
    seen.add(real)
    try:
        names = set(storage.list_names(url))
        if run_folder.CONFIG in names and not (why := url_kinds.why_no_run(url)):
            found.runs.append(url)
            return
        if damage := _damage(names, why if run_folder.CONFIG in names else ""):
            found.others.append(Fault(url, damage, is_run=True))
            return
        if run_folder.CONFIG in names:
            found.others.append(Fault(url, f"is not a run: {why}"))
        # A shard set holds many files and no runs.
        if depth == 0 or "manifest.json" in names:
            return
        folders = storage.list_folders(url) if names else []
    except StorageError as error:
        found.others.append(Fault(url, f"cannot be looked into: {error}"))
        return
    for name in folders:
        if not name.startswith("."):
            _look(storage.join(url, name), depth - 1, found, seen)


def _damage(names: set[str], why: str) -> str:
    """What is wrong with a folder that holds a run's files and no config that can be read; empty: no run."""
    marks = sorted(MARKS & names)
    # One such name alone, like `checkpoints`, is common in the folders of other programs.
    if len(marks) < 2:
        return ""
    return "is a damaged run: " + (why or f"it has {' and '.join(marks)}, and no config.json")
