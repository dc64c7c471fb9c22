"""Remembers the pictures already in a set: 64-bit digest -> key, in about 12 bytes a picture.

Digests of committed shards lie sorted in arrays that are merged now and then; those of the shard that
is being written in a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shards.write.committed_shards import CommittedShard

Digests = NDArray[np.uint64]


class SeenImages:
    """Which key first had a picture."""

    def __init__(self, shards: Iterable[CommittedShard]) -> None:
        """Begin with the pictures of these shards."""
        self._shards: list[CommittedShard] = []
        self._runs: list[tuple[Digests, NDArray[np.int32]]] = []  # sorted digests, and whose they are
        self._new: dict[int, str] = {}
        for done in shards:
            self.add(done)

    def first(self, digest: int, key: str) -> str | None:
        """The key that first had this picture. For a new picture returns None and remembers `key`."""
        first_key = self._new.get(digest) or self._committed(digest)
        if first_key is None:
            self._new[digest] = key
        return first_key

    def add(self, done: CommittedShard) -> None:
        """Move the pictures of a committed shard from the dictionary to sorted arrays."""
        for digest in done.digests.tolist():
            self._new.pop(digest, None)
        digests, owner = done.digests, np.full(len(done.digests), len(self._shards), np.int32)
        order = np.argsort(digests)
        self._shards.append(done)
        self._runs.append((digests[order], owner[order]))
        # Each run is more than twice as long as the next: a digest is merged some log2(n) times in all.
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            last, before = self._runs.pop(), self._runs.pop()
            digests = np.concatenate((before[0], last[0]))
            owner = np.concatenate((before[1], last[1]))
            order = np.argsort(digests, kind="stable")
            self._runs.append((digests[order], owner[order]))

    def _committed(self, digest: int) -> str | None:
        wanted = np.uint64(digest)
        for digests, owner in self._runs:
            at = int(np.searchsorted(digests, wanted))
            if at < len(digests) and digests[at] == wanted:
                done = self._shards[int(owner[at])]
                return done.keys[int(np.flatnonzero(done.digests == wanted)[0])]
        return None
