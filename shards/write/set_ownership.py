"""Files at a set's URL while it is packed: the lock, the marker, and names that keep two sets apart.

    LOCK.json       one process packs, appends or repairs here (`records.folder_lock`)
    packing.json    written before the first tar, removed when all is done: a set is being packed here, and
                    which: {"note", "fingerprint", "generation"}
    oct-000000.tar  a shard; `oct.2-000000.tar` where a set of the first generation stood when it was packed

A set that replaces another is packed beside it in the first generation of names that is free. The manifest,
which is written last, decides which of the two stands here; the other one's files are then removed.
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
BESIDE = ("DATACARD.md", "quality.html", "examples.jpg", "dropped.jpg")
"""What stands beside the manifest for people to look at."""
_SHARD = r"(?P<name>[\w-]+)(\.(?P<generation>\d+))?-\d{6}\.(tar|idx)"
_OURS = re.compile(_SHARD)
_NAMES = "|".join([*map(re.escape, (MANIFEST, MARKER, *BESIDE)), _SHARD])
_UNFINISHED = re.compile(rf"({_NAMES})\.[0-9a-f]{{8}}\.tmp")


@dataclass(frozen=True)
class ShardNames:
    """The names of the shards that one plan writes: `oct-000003`, in a later generation `oct.2-000003`."""

    name: str
    generation: int = 1
    first: int = 0
    """Shards of the set that come before."""

    def stem(self, number: int) -> str:
        """Name of the plan's shard of this number without its extension."""
        mark = "" if self.generation == 1 else f".{self.generation}"
        return f"{self.name}{mark}-{self.first + number:06d}"


@dataclass(frozen=True)
class Marker:
    """What packing.json says: which plan is being packed, and in which generation of names."""

    note: str = ""
    fingerprint: str = ""
    """Empty where an older version has written it."""
    generation: int = 1


def generations(name: str, files: Collection[str]) -> set[int]:
    """Generations of this name that shards among these files have."""
    matches = (_OURS.fullmatch(file) for file in files)
    return {int(match["generation"] or 1) for match in matches if match and match["name"] == name}


def free_generation(name: str, files: Collection[str]) -> int:
    """The first generation of this name that none of these files has."""
    used = generations(name, files)
    return next(number for number in count(1) if number not in used)


def files_of(shards: Collection[Shard]) -> set[str]:
    """Names of the shards and of their indexes."""
    return {file for shard in shards for file in (shard.name, shard.index.name)}


def set_files_at(url: str) -> set[str]:
    """Names of all shards and indexes at the URL, of whichever generation."""
    return {name for name in storage.list_names(url) if _OURS.fullmatch(name)}


def remove_leftovers(url: str, keep: Collection[str]) -> None:
    """Delete all shards, indexes and unfinished files except those in `keep`."""
    for entry in storage.list_names(url):
        if entry not in keep and (_OURS.fullmatch(entry) or _UNFINISHED.fullmatch(entry)):
            storage.delete(storage.join(url, entry))


def write_marker(url: str, fingerprint: str, generation: int = 1) -> None:
    """Write packing.json: which set is being packed at the URL."""
    note = "unfinished shard set: the same pack command goes on from here"
    tree = {"note": note, "fingerprint": fingerprint, "generation": generation}
    # By this file tars without a manifest are known as ours.
    storage.write_json(storage.join(url, MARKER), tree)


def read_marker(url: str) -> Marker | None:
    """Reads packing.json; None where nothing is being packed."""
    where = storage.join(url, MARKER)
    if not storage.exists(where):
        return None
    try:
        return json_reader.read(where, Marker, "run the same pack command again")
    except RecordError:
        return Marker()  # the shards' own records say what they are of


def remove_marker(url: str) -> None:
    """Delete packing.json: the set is complete."""
    storage.delete(storage.join(url, MARKER))


@contextmanager
def set_lock(url: str) -> Iterator[FolderLock]:
    """Hold the lock of a set; DataError where another process packs there.

    A killed process's lock is taken over as that of a run is (`records.folder_lock`). Processes of one
    scheduler's job are rivals here, not each other's restarts.
    """
    # No environment: by a job's id a second pack of the job would pass for the restart of the first.
    lock = FolderLock(url, print_notice, lambda held: _conflict(url, held), env={})
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def drop_lock_of_the_dead(url: str) -> None:
    """Delete LOCK.json where its process is known to be dead: it was killed after the set was complete."""
    FolderLock(url, print_notice, lambda held: _conflict(url, held), env={}).drop_if_abandoned()


def _conflict(url: str, holder: Holder | None) -> DataError:
    who = holder.described if holder else "another process, which took its LOCK.json away"
    return DataError(f"{url} is being packed by {who}: wait for it or stop it, or pack to another out.url")


def print_notice(text: str) -> None:
    """Print a line on stderr at once."""
    print(f"retfound: {text}", file=sys.stderr, flush=True)
