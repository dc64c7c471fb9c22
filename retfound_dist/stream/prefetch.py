"""Fetches shards ahead: works out which shards the next steps read, and copies them in threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retfound_dist.errors import RetfoundError
from retfound_dist.formats.shard_set import Entry, Shard
from retfound_dist.stream.batch_plan import BatchPlan, SampleRefs
from retfound_dist.stream.shard_cache import Copy, ShardCache

BEHIND = 8
"""Steps for which shards are kept after use: other processes of the node may be that late."""
# Seconds: until a shard that another process fetches is looked for again; until a cache without room, or a
# store that failed, is tried again; how long the end of a stream waits for a fetch.
RETRY_BUSY, RETRY_ROOM, LAST_FETCH = 0.2, 30.0, 2.0
SHARDS_AT_ONCE = 8
"""Shards that a rank fetches at the same time."""


@dataclass(frozen=True)
class NeededShards:
    """The shards of some steps, by position in the part."""

    rank: tuple[int, ...]
    """Of this rank, in the order of need."""
    node: frozenset[int]
    """Of all ranks of this node."""


class Lookahead:
    """Works out which shards this rank and its node read, from a step on to the end of the next window."""

    def __init__(self, plan: BatchPlan, rank: slice, node: slice, stop_step: int) -> None:
        self._plan, self._rank, self._node, self._stop = plan, rank, node, stop_step
        self._steps: deque[tuple[int, tuple[int, ...], frozenset[int]]] = deque()

    def at(self, step: int) -> NeededShards:
        """The shards needed at a step; steps must not go back by more than `BEHIND`."""
        end = self._end(step)
        # Steps that were looked at before are remembered, so that a call plans one new batch on average,
        # not a window.
        begin = max(self._steps[-1][0] + 1 if self._steps else 0, step - BEHIND)
        for number in range(begin, end):
            batch = self._plan.batch(number)
            self._steps.append((number, _shards(batch[self._rank]), frozenset(_shards(batch[self._node]))))
        while self._steps and self._steps[0][0] < step - BEHIND:
            self._steps.popleft()
        rank = dict.fromkeys(s for number, shards, _ in self._steps if number >= step for s in shards)
        return NeededShards(tuple(rank), frozenset().union(*(node for *_, node in self._steps)))

    def window(self, step: int) -> tuple[int, int]:
        """Epoch and number of the last window that a step reads from."""
        return self._plan.windows(step)[-1]

    def _end(self, step: int) -> int:
        """The first step after the next window."""
        windows = {self.window(step)}
        end = step + 1
        while end < self._stop:
            windows |= set(self._plan.windows(end))
            if len(windows) > 2 and end > step + 1:
                break
            end += 1
        return end


def _shards(refs: SampleRefs) -> tuple[int, ...]:
    return tuple(np.unique(refs.shard).tolist())


class Prefetcher:
    """Threads that copy the shards needed next. The reader tells them its step.

    Every rank of a node runs such threads; the locks of the cache divide the shards among them.
    """

    def __init__(self, cache: ShardCache, shards: Sequence[Shard], lookahead: Lookahead) -> None:
        self._cache, self._shards, self._lookahead = cache, shards, lookahead
        self._threads = [
            # Daemons: a fetch that a store does not answer must not keep the process alive.
            threading.Thread(target=self._run, name=f"prefetch-{n}", daemon=True)
            for n in range(SHARDS_AT_ONCE)
        ]
        self._step, self._ended = -1, False
        self._moved = threading.Condition()
        self._need = NeededShards((), frozenset())
        self._needed: set[str] = set()
        self.notes: deque[str] = deque()
        """Lines for a person."""

    def at(self, step: int) -> None:
        """The reader is at this step; starts the threads the first time."""
        if step == self._step:
            return
        # Before the threads are woken: they read both without a lock.
        self._need = self._lookahead.at(step)
        self._needed = self._cache.paths([self._shards[i] for i in self._need.node])
        with self._moved:
            self._step = step
            self._moved.notify_all()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def end(self) -> None:
        """Stop the threads; those that are fetching are waited for, `LAST_FETCH` seconds in all."""
        with self._moved:
            self._ended = True
            self._moved.notify_all()
        until = time.monotonic() + LAST_FETCH
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._ended:
            step, pause = self._step, self._round()
            with self._moved:
                # The reader may have moved during the pass: its notice has come already, and no other will.
                if not self._ended and self._step == step:
                    self._moved.wait(pause)

    def _round(self) -> float | None:
        """One pass over the shards needed; returns the seconds to rest, None: until the reader moves."""
        begun, pause = self._step, None
        try:
            self._cache.fetch_indexes([self._shards[number] for number in self._need.rank], wait=False)
        except (RetfoundError, OSError):
            # Not reported from a thread: the reader meets the same error when it needs the index, and
            # raises it.
            return RETRY_ROOM
        for number in self._need.rank:
            # More than a step behind: what comes first now may be another shard.
            if self._ended or self._step > begun + 1:
                return 0.0
            shard = self._shards[number]
            if self._cache.path(shard):
                continue
            try:
                copy = self._cache.fetch(shard, self._needed, wait=False)
            except (RetfoundError, OSError):
                return RETRY_ROOM
            if copy is Copy.NO_ROOM:
                self.notes.append(no_room_note(self._cache))
                return RETRY_ROOM
            if copy is Copy.DIFFERS:
                self.notes.append(f"{shard.name} differs from its manifest: its samples are read one by one")
            pause = RETRY_BUSY if copy is Copy.BUSY else pause
        return pause


class FetchedShards:
    """The shards of a remote set as a reader sees them: local copies, or none yet.

    Until the first window is here, no micro-batch waits for whole shards: its samples are read from the store
    one by one while the shards are fetched. Later micro-batches wait for the shards, so that nothing is read
    twice.
    """

    def __init__(
        self,
        cache: ShardCache,
        shards: Sequence[Shard],
        lookahead: Lookahead,
        prefetcher: Prefetcher | None,
    ) -> None:
        """`prefetcher`: threads of this process, where no other process fetches ahead."""
        self.url = cache.url
        self._cache, self._shards, self._lookahead, self._prefetcher = cache, shards, lookahead, prefetcher
        self._notes: deque[str] = prefetcher.notes if prefetcher else deque()
        self._first_window: tuple[int, int] | None = None
        # Cold: still in the first window, and every micro-batch so far has missed a shard.
        self._cold, self._missing = True, False
        self._step, self._try_room = -1, 0.0

    def at(self, step: int) -> None:
        """The reader is at this step."""
        if self._cold and step != self._step:
            window = self._lookahead.window(step)
            self._first_window = self._first_window or window
            self._cold = window == self._first_window
        self._step = step
        if self._prefetcher:
            self._prefetcher.at(step)

    def close(self) -> None:
        """End the threads."""
        if self._prefetcher:
            self._prefetcher.end()

    def path(self, shard: Shard) -> str | None:
        """The path of the copy; None where samples have to be read from the store."""
        path = self._cache.path(shard)
        self._missing = self._missing or path is None
        if path or self._cold or time.monotonic() < self._try_room:
            return path
        # It should have been here by now. Fetched by this process, or waited for where another one fetches
        # it.
        node = self._lookahead.at(self._step).node
        copy = self._cache.fetch(shard, self._cache.paths([self._shards[i] for i in node]), wait=True)
        if copy is Copy.NO_ROOM:
            self._try_room = time.monotonic() + RETRY_ROOM
            self._notes.append(no_room_note(self._cache))
        return self._cache.path(shard)

    def prepare(self, shards: Sequence[Shard]) -> None:
        """Fetch the missing indexes of all these shards side by side."""
        self._cache.fetch_indexes(shards)

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""
        return self._cache.entries(shard)

    def damaged(self, shard: Shard) -> None:
        """Remove a copy that has changed since it was fetched."""
        note = f"the copy of {shard.name} in {self._cache.folder} is damaged: fetched again"
        self._notes.append(note)
        self._cache.forget(shard)

    def end_batch(self) -> list[str]:
        """A micro-batch is complete; returns lines for a person."""
        self._cold, self._missing = self._cold and self._missing, False
        notes = []
        # Not `list` and `clear`: a note that a thread appends between the two would be lost.
        while self._notes:
            notes.append(self._notes.popleft())
        return notes


def no_room_note(cache: ShardCache) -> str:
    """The line that says why shards cannot be kept."""
    why = cache.trouble or "there is no room"
    return f"shards cannot be kept in {cache.folder} ({why}): reading samples straight from {cache.url}"
