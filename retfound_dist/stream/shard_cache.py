"""Local copies of a remote set's shards, shared by the processes of a node.

    oct-000003.5f0c….tar        a complete, verified copy; its name has its sha256, so it is never outdated
    oct-000003.5f0c….tar.part   a draft: the process with its lock is fetching this copy
    .locks/                     one lock for each file, and `room` for changes of the disk space in use

Copies appear complete and verified. The kernel releases a lock when its process ends, also after a crash:
then the next process fetches again. When the disk is full, the least recently used files are removed first.
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
from retfound_dist.io.byte_ranges import Range, ReadTraffic, add_traffic, read_ranges

PART_BYTES = 8 << 20
"""Bytes of one request for a part of a shard."""
# For each shard. With `prefetch.SHARDS_AT_ONCE` a rank fetches at most 16 parts, 128 MB, at the same time.
PARTS_AT_ONCE = 2
MAX_SHARD_FETCHES, MAX_INDEX_FETCHES = 3, 8
"""Fetches of a shard, and of an index, with wrong bytes before the store's own bytes are considered wrong."""
WRONG_BYTES_RETRY_S = 600.0
"""Time for which a shard that differs from its manifest is not fetched again, in seconds."""


class FetchResult(Enum):
    """The result of asking for a local copy."""

    READY = "ready"
    BUSY = "another process is fetching it"
    NO_SPACE = "no space for it"
    WRONG_BYTES = "the store's bytes differ from the manifest"


class ShardCache:
    """Copies of the shards at a URL, in a folder that other processes also use."""

    def __init__(
        self, url: str, folder: str, limit_bytes: int | None, only_needed: bool, patience_s: float
    ) -> None:
        """`limit_bytes` None: no limit; `only_needed`: copies that no rank of the node needs are removed."""
        self.url, self.folder, self.limit_bytes = url, folder, limit_bytes
        self.only_needed, self.patience_s = only_needed, patience_s
        # Indexes that did not fit on the disk. Without its index no sample of a shard can be read.
        self._indexes: dict[str, bytes] = {}
        self.last_error = ""
        """Why the last shard could not be kept."""
        try:
            os.makedirs(os.path.join(folder, ".locks"), exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot keep shards in {folder}: {disk_errors.explain(error, folder)}; "
                "set data.cache_dir to a writable folder"
            ) from error

    def path(self, shard: Shard) -> str | None:
        """The path of the shard's copy; None if there is none."""
        path = self._copy_path(shard.name, shard.sha256)
        with suppress(OSError):
            if os.stat(path).st_size == shard.bytes:
                # Records the use for `_reserve`, because many disks are mounted without access times. This
                # fails in a read-only cache, which can still be used.
                with suppress(OSError):
                    os.utime(path)
                return path
        return None

    def fetch(self, shard: Shard, needed: Collection[str], wait: bool) -> FetchResult:
        """Fetch the shard unless there is a copy; `needed`: paths (see `paths`) that must not be removed."""
        path = self._copy_path(shard.name, shard.sha256)
        try:
            with self._locked(os.path.basename(path), wait) as acquired:
                if not acquired:
                    return FetchResult.BUSY
                # Another process may have fetched it while this one waited for the lock.
                if self.path(shard):
                    return FetchResult.READY
                if _is_younger(path + ".differs", WRONG_BYTES_RETRY_S):
                    return FetchResult.WRONG_BYTES
                return self._fetch_shard(shard, path, needed)
        except OSError as error:
            # A full, read-only or failing disk is no reason to stop: samples can be read from the store.
            self.last_error = disk_errors.explain(error, self.folder, with_free_space=False)
            return FetchResult.NO_SPACE

    def remove_copy(self, shard: Shard) -> None:
        """Remove the copy of a shard that was found to be damaged."""
        # Fails in a cache that has become read-only: then each damaged sample is read from the store.
        with suppress(OSError):
            os.unlink(self._copy_path(shard.name, shard.sha256))

    def paths(self, shards: Collection[Shard]) -> set[str]:
        """The paths of the copies of shards, whether they exist or not."""
        return {self._copy_path(shard.name, shard.sha256) for shard in shards}

    def fetch_indexes(self, shards: Sequence[Shard], wait: bool = True) -> None:
        """Fetch the missing indexes of the shards in parallel, and compare them with the manifest.

        Without `wait` nothing is fetched while another process or thread fetches indexes.
        """
        if all(self._has_index(shard) for shard in shards):
            return
        try:
            with self._locked("indexes", wait) as acquired:
                missing = self._fetch_missing(shards) if acquired else []
        except OSError:
            # A full or read-only disk allows no lock: then keep them in memory, for this process alone.
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
                os.unlink(self._index_path(shard))
            data = self._fetch_index_again(shard)
        return parse_index(data, shard, storage.join(self.url, shard.index.name))

    def _cached_index(self, shard: Shard) -> bytes:
        """The bytes on disk; empty if they cannot be read."""
        try:
            return Path(self._index_path(shard)).read_bytes()
        except OSError:
            return b""

    def _fetch_index_again(self, shard: Shard) -> bytes:
        """The index from the store, after the copy was found to be damaged."""
        for _ in range(MAX_INDEX_FETCHES):
            if not self._fetch_indexes([shard]):
                return self._indexes.get(shard.index.name) or self._cached_index(shard)
        raise ManifestError(
            f"{shard.index.name} of {self.url} differs from the manifest's sha256: pack the set again"
        )

    def _fetch_missing(self, shards: Sequence[Shard]) -> list[Shard]:
        """Fetch the missing indexes; returns the shards whose indexes always had wrong bytes."""
        missing = [shard for shard in shards if not self._has_index(shard)]
        for _ in range(MAX_INDEX_FETCHES):
            missing = self._fetch_indexes(missing)
        return missing

    def _fetch_indexes(self, missing: Sequence[Shard]) -> list[Shard]:
        """Fetch the indexes once; returns the shards whose indexes had wrong bytes."""
        if not missing:
            return []
        ranges = [Range(storage.join(self.url, s.index.name), 0, s.index.bytes) for s in missing]
        wrong_shards = []
        for shard, data in zip(missing, read_ranges(ranges, self.patience_s), strict=True):
            if storage.bytes_info(data).sha256 != shard.index.sha256:
                wrong_shards.append(shard)
                continue
            try:
                storage.write_bytes(self._index_path(shard), data)
            except (StorageError, OSError):
                # The disk is full or read-only.
                self._indexes[shard.index.name] = data
        add_traffic(ReadTraffic(retries=len(wrong_shards)))
        return wrong_shards

    def _has_index(self, shard: Shard) -> bool:
        return shard.index.name in self._indexes or os.path.exists(self._index_path(shard))

    def _index_path(self, shard: Shard) -> str:
        return self._copy_path(shard.index.name, shard.index.sha256)

    def _copy_path(self, name: str, sha256: str) -> str:
        stem, extension = os.path.splitext(name)
        return os.path.join(self.folder, f"{stem}.{sha256[:16]}{extension}")

    def _fetch_shard(self, shard: Shard, path: str, needed: Collection[str]) -> FetchResult:
        """Download a shard to `path`, which other processes then see complete or not at all."""
        draft = path + ".part"
        try:
            if not self._reserve(draft, shard.bytes, needed):
                return FetchResult.NO_SPACE
            for _ in range(MAX_SHARD_FETCHES):
                if self._download(shard, draft) == shard.sha256:
                    # Under this lock, so that no `_reserve` counts the file twice or not at all.
                    with self._locked("room", wait=True):
                        os.replace(draft, path)
                    return FetchResult.READY
                add_traffic(ReadTraffic(retries=1))
            # For all processes of the node: each would fetch the whole shard `MAX_SHARD_FETCHES` times.
            Path(path + ".differs").touch()
            return FetchResult.WRONG_BYTES
        finally:
            with suppress(OSError):
                os.unlink(draft)

    def _download(self, shard: Shard, draft: str) -> str:
        """Write the shard's bytes into its draft; returns the sha256 of the received bytes.

        `PARTS_AT_ONCE` byte ranges are requested at the same time, and written in their order.
        """
        url, digest = storage.join(self.url, shard.name), hashlib.sha256()
        ranges = [
            Range(url, start, min(start + PART_BYTES, shard.bytes))
            for start in range(0, shard.bytes, PART_BYTES)
        ]
        # "rb+" keeps the disk space that `_reserve` has reserved; "wb" would release it.
        with open(draft, "rb+") as file:
            for first in range(0, len(ranges), PARTS_AT_ONCE):
                for data in read_ranges(ranges[first : first + PARTS_AT_ONCE], self.patience_s):
                    digest.update(data)
                    file.write(data)
        return digest.hexdigest()

    def _reserve(self, draft: str, size: int, needed: Collection[str]) -> bool:
        """Reserve `size` bytes of disk for a draft; removes the least recently used files if that helps."""
        # One process at a time: otherwise two would both reserve the last space.
        with self._locked("room", wait=True):
            files = sorted((e for e in self._cached_files() if e[0] != draft), key=lambda entry: entry[1])
            total = sum(entry[2] for entry in files)
            removable = [entry for entry in files if entry[0] not in needed and self._is_unlocked(entry[0])]
            while True:
                fits = self.limit_bytes is None or total + size <= self.limit_bytes
                if fits and not (self.only_needed and removable) and self._allocate(draft, size):
                    return True
                if not fits:
                    self.last_error = f"data.cache_gb={(self.limit_bytes or 0) / 1e9:g} is too little"
                if not removable:
                    return False
                path, _, freed = removable.pop(0)
                with suppress(FileNotFoundError):
                    os.unlink(path)
                total -= freed

    def _allocate(self, path: str, size: int) -> bool:
        """Create a file with `size` bytes of reserved disk space; False, and no file, on a full disk."""
        try:
            with open(path, "wb") as file:
                # posix_fallocate(3) refuses a length of 0. It reserves the space, so that a full disk is
                # noticed before the shard is fetched; truncate would create a sparse file.
                if size:
                    os.posix_fallocate(file.fileno(), 0, size)
            return True
        except OSError as error:
            # The space that was reserved before the disk was full would stay in use.
            with suppress(OSError):
                os.unlink(path)
            if error.errno not in disk_errors.FULL_DISK_ERRNOS:
                raise
            # A note with other numbers would be shown again, for each shard.
            self.last_error = disk_errors.explain(error, path, with_free_space=False)
            return False

    def _cached_files(self) -> Iterator[tuple[str, float, int]]:
        """Path, last use and bytes of every file that uses space."""
        # Also of drafts: their space is reserved.
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith((".tar", ".part")):
                    # Another process may remove it between the listing and here.
                    with suppress(FileNotFoundError):
                        info = entry.stat()
                        yield entry.path, info.st_mtime, info.st_size

    def _is_unlocked(self, path: str) -> bool:
        """Whether no process is writing a file."""
        # A draft whose lock is free was left by a killed process.
        if not path.endswith(".part"):
            return True
        with self._locked(os.path.basename(path).removesuffix(".part"), wait=False) as acquired:
            return acquired

    @contextmanager
    def _locked(self, name: str, wait: bool) -> Iterator[bool]:
        """A lock that one process or thread of this node holds at a time; yields whether this one has it."""
        # flock, not a lock file: the kernel releases it when its process dies. Each call opens the file
        # again, so that it also excludes other threads of this process.
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
