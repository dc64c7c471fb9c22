"""Remembers the pictures already in a set: 64-bit digest -> key, in about 12 bytes a picture.

Digests of committed shards are in sorted arrays, which are merged now and then. Digests of the shard that is
being written are in a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shards.write.committed_shards import CommittedShard

Digests = NDArray[np.uint64]


class SeenImages:
    """The key under which each picture was first packed."""

    def __init__(self, shards: Iterable[CommittedShard]) -> None:
        """Begin with the pictures of these shards."""
        self._shards: list[CommittedShard] = []
        # Sorted digests, and the number of the shard that holds each of them.
        self._sorted_runs: list[tuple[Digests, NDArray[np.int32]]] = []
        self._open_keys: dict[int, str] = {}
        for committed in shards:
            self.add(committed)

    def find_or_add(self, digest: int, key: str) -> str | None:
        """Returns the key under which this picture was packed. For a new picture: None, and it is added."""
        first_key = self._open_keys.get(digest) or self._committed_key(digest)
        if first_key is None:
            self._open_keys[digest] = key
        return first_key

    def add(self, committed: CommittedShard) -> None:
        """Move the pictures of a committed shard from the dictionary to sorted arrays."""
        for digest in committed.digests.tolist():
            self._open_keys.pop(digest, None)
        digests = committed.digests
        shard_numbers = np.full(len(digests), len(self._shards), np.int32)
        order = np.argsort(digests)
        self._shards.append(committed)
        self._sorted_runs.append((digests[order], shard_numbers[order]))
        # Each run is more than twice as long as the next, so a digest is merged some log2(n) times in all.
        while len(self._sorted_runs) > 1 and len(self._sorted_runs[-2][0]) <= 2 * len(
            self._sorted_runs[-1][0]
        ):
            last, before = self._sorted_runs.pop(), self._sorted_runs.pop()
            digests = np.concatenate((before[0], last[0]))
            shard_numbers = np.concatenate((before[1], last[1]))
            order = np.argsort(digests, kind="stable")
            self._sorted_runs.append((digests[order], shard_numbers[order]))

    def _committed_key(self, digest: int) -> str | None:
        """Returns the key of a committed sample with this digest."""
        target = np.uint64(digest)
        for digests, shard_numbers in self._sorted_runs:
            place = int(np.searchsorted(digests, target))
            if place < len(digests) and digests[place] == target:
                committed = self._shards[int(shard_numbers[place])]
                return committed.keys[int(np.flatnonzero(committed.digests == target)[0])]
        return None
