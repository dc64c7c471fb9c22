"""Local copies of a remote set's shards, shared by the processes of a node.

    oct-000003.5f0c….tar        a whole, checked copy; named by its sha256, so it cannot be out of date
    oct-000003.5f0c….tar.part   one that is being fetched, by whoever holds its lock
    .locks/                     one lock a file, and `room` for those who make room

Copies appear whole and checked. A lock ends with the process that holds it, whatever ends that. So after a
crash the next process fetches again. When there is no room, the files used longest ago are removed first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from retfound_dist.errors import DataError, ManifestError, StorageError
from retfound_dist.formats.shard_set import Entry, Shard, parse_index
from retfound_dist.io import disk_errors, storage
from retfound_dist.io.byte_ranges import Range, ReadTraffic, count, read_ranges

PART_BYTES = 8 << 20
# Of each shard. With `prefetch.SHARDS_AT_ONCE` a rank has 16 parts, 128 MB, on their way at most.
PARTS_AT_ONCE = 2
TRIES, INDEX_TRIES = 3, 8
"""Times that wrong bytes of a shard, and of an index, are fetched before the store is taken to hold them."""
DIFFERS_FOR = 600.0
"""Seconds for which a shard that differs from its manifest is not fetched again."""


class Copy(Enum):
    """The result of asking for a local copy."""

    READY = "ready"
    BUSY = "another process is fetching it"
    NO_ROOM = "no room for it"
    DIFFERS = "the store's bytes differ from the manifest"


class ShardCache:
    """Copies of the shards at a URL, in a folder that other processes use as well."""

    def __init__(
        self, url: str, folder: str, limit: int | None, only_needed: bool, patience_s: float
    ) -> None:
        """`limit` in bytes, None: no limit; `only_needed`: what no rank of the node needs goes at once."""
        self.url, self.folder, self.limit = url, folder, limit
        self.only_needed, self.patience_s = only_needed, patience_s
        # Indexes for which there was no room on disk. Without its index no sample of a shard can be found.
        self._indexes: dict[str, bytes] = {}
        self.trouble = ""
        """Why the last shard could not be kept."""
        try:
            os.makedirs(os.path.join(folder, ".locks"), exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot keep shards in {folder}: {disk_errors.explain(error, folder)}; "
                "set data.cache_dir to a "
                "writable folder"
            ) from error

    def path(self, shard: Shard) -> str | None:
        """The shard's copy where there is one."""
        path = self._path(shard.name, shard.sha256)
        with suppress(OSError):
            if os.stat(path).st_size == shard.bytes:
                # Marks the use, for `_reserve`: many disks are mounted without access times. A read-only
                # cache is used as it is.
                with suppress(OSError):
                    os.utime(path)
                return path
        return None

    def fetch(self, shard: Shard, needed: Collection[str], wait: bool) -> Copy:
        """Fetch the shard unless its copy is there; `needed`: paths (see `paths`) that may not be removed."""
        path = self._path(shard.name, shard.sha256)
        try:
            with self._locked(os.path.basename(path), wait) as acquired:
                if not acquired:
                    return Copy.BUSY
                # Another process may have fetched it while this one waited for the lock.
                if self.path(shard):
                    return Copy.READY
                if _is_younger(path + ".differs", DIFFERS_FOR):
                    return Copy.DIFFERS
                return self._fetch(shard, path, needed)
        except OSError as error:
            # Full, read-only or failing: a cache is no reason to stop, samples can be read from the store.
            self.trouble = disk_errors.explain(error, self.folder, shard.bytes)
            return Copy.NO_ROOM

    def forget(self, shard: Shard) -> None:
        """Remove the copy of a shard that was found to be damaged."""
        # Fails in a cache that has become read-only: each of its samples is then checked and read from the
        # store.
        with suppress(OSError):
            os.unlink(self._path(shard.name, shard.sha256))

    def paths(self, shards: Collection[Shard]) -> set[str]:
        """The paths of the copies of shards, whether they are there or not."""
        return {self._path(shard.name, shard.sha256) for shard in shards}

    def fetch_indexes(self, shards: Sequence[Shard], wait: bool = True) -> None:
        """Fetch the missing indexes of the shards side by side, and check them against the manifest.

        Without `wait` they are left to another process or thread that is fetching indexes now.
        """
        if all(self._has_index(shard) for shard in shards):
            return
        try:
            with self._locked("indexes", wait) as acquired:
                missing = self._fetch_missing(shards) if acquired else []
        except OSError:
            # No lock can be taken on a full or read-only disk: then in memory, for this process alone.
            missing = self._fetch_missing(shards)
        if missing:
            names = ", ".join(shard.index.name for shard in missing[:3])
            raise ManifestError(
                f"{names} of {self.url} differs from the manifest's sha256: pack the set again"
            )

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""
        self.fetch_indexes([shard])
        data = self._indexes.get(shard.index.name) or self._cached_index(shard)
        if storage.bytes_info(data).sha256 != shard.index.sha256:
            with suppress(OSError):
                os.unlink(self._index(shard))
            data = self._fetch_index_again(shard)
        return parse_index(data, shard, storage.join(self.url, shard.index.name))

    def _cached_index(self, shard: Shard) -> bytes:
        """The bytes on disk; empty where they cannot be read."""
        try:
            return Path(self._index(shard)).read_bytes()
        except OSError:
            return b""

    def _fetch_index_again(self, shard: Shard) -> bytes:
        """The index from the store, when the copy is damaged and perhaps cannot be removed."""
        for _ in range(INDEX_TRIES):
            if not self._fetch_indexes([shard]):
                return self._indexes.get(shard.index.name) or self._cached_index(shard)
        raise ManifestError(
            f"{shard.index.name} of {self.url} differs from the manifest's sha256: pack the set again"
        )

    def _fetch_missing(self, shards: Sequence[Shard]) -> list[Shard]:
        """Fetch the indexes that are not here; returns those that always came with the wrong bytes."""
        missing = [shard for shard in shards if not self._has_index(shard)]
        for _ in range(INDEX_TRIES):
            missing = self._fetch_indexes(missing)
        return missing

    def _fetch_indexes(self, missing: Sequence[Shard]) -> list[Shard]:
        """One try; returns those that came with the wrong bytes."""
        if not missing:
            return []
        ranges = [Range(storage.join(self.url, s.index.name), 0, s.index.bytes) for s in missing]
        wrong = []
        for shard, data in zip(missing, read_ranges(ranges, self.patience_s), strict=True):
            if storage.bytes_info(data).sha256 != shard.index.sha256:
                wrong.append(shard)
                continue
            try:
                storage.write_bytes(self._index(shard), data)
            except (StorageError, OSError):
                # The disk is full or read-only.
                self._indexes[shard.index.name] = data
        count(ReadTraffic(retries=len(wrong)))
        return wrong

    def _has_index(self, shard: Shard) -> bool:
        return shard.index.name in self._indexes or os.path.exists(self._index(shard))

    def _index(self, shard: Shard) -> str:
        return self._path(shard.index.name, shard.index.sha256)

    def _path(self, name: str, sha256: str) -> str:
        stem, extension = os.path.splitext(name)
        return os.path.join(self.folder, f"{stem}.{sha256[:16]}{extension}")

    def _fetch(self, shard: Shard, path: str, needed: Collection[str]) -> Copy:
        part = path + ".part"
        try:
            if not self._reserve(part, shard.bytes, needed):
                return Copy.NO_ROOM
            for _ in range(TRIES):
                if self._download(shard, part) == shard.sha256:
                    # Under the lock of those who make room, so that none of them counts it twice or not at
                    # all.
                    with self._locked("room", wait=True):
                        os.replace(part, path)
                    return Copy.READY
                count(ReadTraffic(retries=1))
            # For all processes of the node: each of them would fetch the whole shard `TRIES` times.
            Path(path + ".differs").touch()
            return Copy.DIFFERS
        finally:
            with suppress(OSError):
                os.unlink(part)

    def _download(self, shard: Shard, part: str) -> str:
        """Fill the reserved file, several parts at once; returns the sha256 of the bytes that came."""
        url, digest = storage.join(self.url, shard.name), hashlib.sha256()
        ranges = [
            Range(url, start, min(start + PART_BYTES, shard.bytes))
            for start in range(0, shard.bytes, PART_BYTES)
        ]
        # "rb+" keeps the reserved space; "wb" would give it back to the disk.
        with open(part, "rb+") as file:
            for first in range(0, len(ranges), PARTS_AT_ONCE):
                for data in read_ranges(ranges[first : first + PARTS_AT_ONCE], self.patience_s):
                    digest.update(data)
                    file.write(data)
        return digest.hexdigest()

    def _reserve(self, part: str, size: int, needed: Collection[str]) -> bool:
        """Reserve `size` bytes of disk for a file; removes the files used longest ago where that helps."""
        # One process at a time: two that count together would both take the last room.
        with self._locked("room", wait=True):
            files = sorted((e for e in self._cached_files() if e[0] != part), key=lambda entry: entry[1])
            total = sum(entry[2] for entry in files)
            removable = [entry for entry in files if entry[0] not in needed and self._is_unlocked(entry[0])]
            while True:
                fits = self.limit is None or total + size <= self.limit
                if fits and not (self.only_needed and removable) and self._allocate(part, size):
                    return True
                if not fits:
                    self.trouble = f"data.cache_gb={(self.limit or 0) / 1e9:g} is too little"
                if not removable:
                    return False
                path, _, freed = removable.pop(0)
                with suppress(FileNotFoundError):
                    os.unlink(path)
                total -= freed

    def _allocate(self, path: str, size: int) -> bool:
        """Make a file of `size` bytes with its disk space taken; False, and no file, on a full disk."""
        try:
            with open(path, "wb") as file:
                # posix_fallocate(3) refuses a length of 0. It takes the space now, so that a disk is found
                # full before a shard is fetched and not in the middle; truncate would make a sparse file.
                if size:
                    os.posix_fallocate(file.fileno(), 0, size)
            return True
        except OSError as error:
            # What could be taken before the disk was full would stay taken.
            with suppress(OSError):
                os.unlink(path)
            if error.errno not in disk_errors.FULL:
                raise
            self.trouble = disk_errors.explain(error, path, size)
            return False

    def _cached_files(self) -> Iterator[tuple[str, float, int]]:
        """Path, last use and bytes of every file that takes room."""
        # Parts count: their space is reserved.
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith((".tar", ".part")):
                    # Another process may remove it between the listing and here.
                    with suppress(FileNotFoundError):
                        info = entry.stat()
                        yield entry.path, info.st_mtime, info.st_size

    def _is_unlocked(self, path: str) -> bool:
        """Whether nobody is fetching into a file."""
        # A part whose lock can be had is what a killed process left.
        if not path.endswith(".part"):
            return True
        with self._locked(os.path.basename(path).removesuffix(".part"), wait=False) as acquired:
            return acquired

    @contextmanager
    def _locked(self, name: str, wait: bool) -> Iterator[bool]:
        """A lock that one process or thread of this node holds at a time; yields whether this one has it."""
        # flock and not a lock file: the kernel releases it when its process dies. Each call opens the file
        # anew, so threads of one process exclude each other too.
        with open(os.path.join(self.folder, ".locks", name), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def _is_younger(path: str, seconds: float) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime < seconds
    except FileNotFoundError:
        return False
