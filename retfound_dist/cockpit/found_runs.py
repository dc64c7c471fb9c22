"""Which folders below a URL are runs, and which only look like one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from retfound_dist import kinds, runlog, storage
from retfound_dist.errors import StorageError

DEPTH = 3
"""How many folders below the URL runs are looked for."""


@dataclass
class Found:
    """What was found below a URL, in order."""

    runs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """`URL is not a run: why`, of folders with a config.json of something else or that cannot be read."""


def look(url: str, depth: int = DEPTH) -> Found:
    """The runs at or below a URL; a run's own folders and shard sets are not looked into."""
    found = Found()
    _look(url, depth, found, set())
    return found


def find_runs(url: str, depth: int = DEPTH) -> list[str]:
    """URLs of the runs at or below a URL, in order."""
    return look(url, depth).runs


def _look(url: str, depth: int, found: Found, seen: set[str]) -> None:
    """`seen`: the real folders so far: a link to one of them is not followed again, nor in a circle."""
    real = os.path.realpath(storage.local_path(url)) if storage.is_local(url) else url
    if real in seen:
        return
    seen.add(real)
    try:
        names = storage.list_names(url)
        if runlog.CONFIG in names:
            why = kinds.why_no_run(url)
            if not why:
                found.runs.append(url)
                return
            found.others.append(f"{url} is not a run: {why}")
        if depth == 0 or "manifest.json" in names:
            return
        folders = storage.list_folders(url) if names else []
    except StorageError as error:
        found.others.append(f"{url} cannot be looked into: {error}")
        return
    for name in folders:
        if not name.startswith("."):
            _look(storage.join(url, name), depth - 1, found, seen)
