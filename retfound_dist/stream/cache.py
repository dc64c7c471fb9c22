"""Shards as local files: where they lie, fetched whole, checked, shared by a node's processes.

A local shard set is read where it is. A remote shard is copied to the cache folder under a lock, so
that the processes of a node fetch it once; it appears there whole and is checked against the
manifest's sha256.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from retfound_dist import storage
from retfound_dist.errors import DataError, ManifestError
from retfound_dist.shardset import Entry, Shard, parse_index


@dataclass(frozen=True)
class OpenShard:
    """A shard mapped into memory, and where its samples lie."""

    shard: Shard
    data: mmap.mmap
    entries: tuple[Entry, ...]


class ShardFiles:
    """Opens the shards of one set, keeping at most `keep` of them mapped."""

    def __init__(self, url: str, cache_dir: str, keep: int) -> None:
        self.url, self.cache_dir, self.keep = url, cache_dir, keep
        self._open: OrderedDict[str, OpenShard] = OrderedDict()

    def open(self, shard: Shard) -> OpenShard:
        """The shard's bytes and index; DataError when they differ from the manifest."""
        found = self._open.pop(shard.name, None)
        if found is None:
            with open(self._local(shard.index.name, shard.index.bytes, shard.index.sha256), "rb") as file:
                entries = parse_index(file.read())
            with open(self._local(shard.name, shard.bytes, shard.sha256), "rb") as file:
                found = OpenShard(shard, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), entries)
            if len(entries) != shard.samples:
                raise ManifestError(
                    f"{shard.index.name} lists {len(entries)} samples, the manifest {shard.samples}"
                )
        self._open[shard.name] = found
        while len(self._open) > self.keep:
            self._open.popitem(last=False)
        return found

    def forget(self, shards: set[str]) -> None:
        """Close shards and remove their cached copies."""
        for name in shards:
            self._open.pop(name, None)
            for part in (name, name.removesuffix(".tar") + ".idx"):
                if not storage.is_local(self.url) and os.path.exists(
                    path := os.path.join(self.cache_dir, part)
                ):
                    os.unlink(path)

    def _local(self, name: str, size: int, sha256: str) -> str:
        where = storage.join(self.url, name)
        if storage.is_local(self.url):
            path = storage.local_path(where)
            if not os.path.exists(path):
                raise DataError(f"shard file {where} is missing: pack the set again, or repair the copy")
        else:
            path = os.path.join(self.cache_dir, name)
            with _locked(path + ".lock"):
                if not os.path.exists(path) or os.path.getsize(path) != size:
                    storage.get_file(where, path)
        info = storage.file_info(path)
        if (info.bytes, info.sha256) != (size, sha256):
            raise DataError(
                f"shard file {where} differs from its manifest ({info.bytes} of {size} bytes, sha256 "
                f"{info.sha256[:12]} for {sha256[:12]}): run `retfound verify {self.url}`"
            )
        return path


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """One process of this node at a time; the lock goes with the process, however it ends."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
