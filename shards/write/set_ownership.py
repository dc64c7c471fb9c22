"""Files at a set's URL while it is packed: the lock, the marker, and names that keep two sets apart.

    LOCK.json       one process packs, appends or repairs here (`records.folder_lock`)
    packing.json    the marker: says which set is being packed here. Written before the first tar and removed
                    at the end: {"note", "fingerprint", "generation"}
    oct-000000.tar  a shard. `oct.2-000000.tar` is of the second generation: the set replaces one of the first

A set that replaces another is packed beside it, under the first free generation of names. The manifest is
written last and decides which of the two is the set. Then the files of the other one are removed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from retfound_dist.errors import DataError, RecordError
from retfound_dist.formats.shard_set import MANIFEST, Shard
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.records.folder_lock import FolderLock, Holder

MARKER = "packing.json"
PAGE_FILES = ("DATACARD.md", "quality.html", "examples.jpg", "dropped.jpg")
"""Files beside the manifest that are for people."""
_SHARD = r"(?P<name>[\w-]+)(\.(?P<generation>\d+))?-\d{6}\.(tar|idx)"
_SHARD_FILE = re.compile(_SHARD)
_FILE_NAMES = "|".join([*map(re.escape, (MANIFEST, MARKER, *PAGE_FILES)), _SHARD])
_UNFINISHED = re.compile(rf"({_FILE_NAMES})\.[0-9a-f]{{8}}\.tmp")


@dataclass(frozen=True)
class ShardNames:
    """The names of the shards that one plan writes: `oct-000003`, in a later generation `oct.2-000003`."""

    name: str
    generation: int = 1
    first_number: int = 0
    """Number of the plan's first shard: an append counts on from the existing shards."""

    def stem(self, number: int) -> str:
        """Name of the plan's shard of this number without its extension."""
        suffix = "" if self.generation == 1 else f".{self.generation}"
        return f"{self.name}{suffix}-{self.first_number + number:06d}"


@dataclass(frozen=True)
class Marker:
    """The contents of packing.json: which plan is being packed, and in which generation of names."""

    note: str = ""
    fingerprint: str = ""
    """Empty in files of older versions."""
    generation: int = 1


def generations(name: str, files: Collection[str]) -> set[int]:
    """Returns the generations of this name among the shards in `files`."""
    matches = (_SHARD_FILE.fullmatch(file) for file in files)
    return {int(match["generation"] or 1) for match in matches if match and match["name"] == name}


def free_generation(name: str, files: Collection[str]) -> int:
    """Returns the first generation of this name that no shard in `files` has."""
    used = generations(name, files)
    return next(number for number in count(1) if number not in used)


def shard_files_of(shards: Collection[Shard]) -> set[str]:
    """Returns the names of the shards and of their indexes."""
    return {file for shard in shards for file in (shard.name, shard.index.name)}


def shard_files_at(url: str) -> set[str]:
    """Returns the names of all shards and indexes at the URL, of every generation."""
    return {name for name in storage.list_names(url) if _SHARD_FILE.fullmatch(name)}


def remove_leftovers(url: str, keep: Collection[str]) -> None:
    """Delete all shards, indexes and unfinished files except those in `keep`."""
    for entry in storage.list_names(url):
        if entry not in keep and (_SHARD_FILE.fullmatch(entry) or _UNFINISHED.fullmatch(entry)):
            storage.delete(storage.join(url, entry))


def write_marker(url: str, fingerprint: str, generation: int = 1) -> None:
    """Write packing.json: which set is being packed at the URL."""
    note = "unfinished shard set: the same pack command goes on from here"
    tree = {"note": note, "fingerprint": fingerprint, "generation": generation}
    # This file shows that tars without a manifest come from this software.
    storage.write_json(storage.join(url, MARKER), tree)


def read_marker(url: str) -> Marker | None:
    """Reads packing.json; None where nothing is being packed."""
    where = storage.join(url, MARKER)
    if not storage.exists(where):
        return None
    try:
        return json_reader.read(where, Marker, "run the same pack command again")
    except RecordError:
        return Marker()  # the shards' indexes say which plan they belong to


def remove_marker(url: str) -> None:
    """Delete packing.json: the set is complete."""
    storage.delete(storage.join(url, MARKER))


@contextmanager
def set_lock(url: str) -> Iterator[FolderLock]:
    """Hold the lock of a set; DataError where another process packs there.

    The lock of a killed process is taken over (`records.folder_lock`). Two processes of one scheduler job
    exclude each other: neither counts as the restart of the other.
    """
    # An empty environment hides the job's id, by which the second process would count as a restart.
    lock = FolderLock(url, print_notice, lambda holder: _held_lock_error(url, holder), env={})
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def remove_stale_lock(url: str) -> None:
    """Delete LOCK.json where its process is known to be dead: it was killed after it completed the set."""
    FolderLock(url, print_notice, lambda holder: _held_lock_error(url, holder), env={}).delete_if_abandoned()


def _held_lock_error(url: str, holder: Holder | None) -> DataError:
    """The error for a set whose lock another process holds.

    `holder`: the process that LOCK.json names; None where the file was removed or damaged meanwhile.
    """
    holder_text = holder.description if holder else "another process, which replaced this LOCK.json"
    return DataError(
        f"{url} is being packed by {holder_text}: wait for it or stop it, or pack to another out.url"
    )


def print_notice(text: str) -> None:
    """Print a line on stderr at once."""
    print(f"retfound: {text}", file=sys.stderr, flush=True)
