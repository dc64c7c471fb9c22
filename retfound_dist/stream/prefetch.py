"""Fetches shards ahead: determines which shards the next steps read, and copies them in threads."""

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
from retfound_dist.stream.shard_cache import FetchResult, ShardCache

KEPT_STEPS = 8
"""Steps for which shards are kept after use: other processes of the node may be that far behind."""
# Time until a shard that another process fetches is checked again; until a full cache or a failed store is
# tried again; and for which the end of a stream waits for a fetch.
RETRY_BUSY_S, RETRY_SPACE_S, LAST_FETCH_S = 0.2, 30.0, 2.0
SHARDS_AT_ONCE = 8
"""Shards that a rank fetches at the same time."""


@dataclass(frozen=True)
class NeededShards:
    """The shards of some steps, by position in the part."""

    rank: tuple[int, ...]
    """Those of this rank, in the order of use."""
    node: frozenset[int]
    """Those of all ranks of this node."""


class Lookahead:
    """Determines which shards this rank and its node read, from a step to the end of the next window."""

    def __init__(self, plan: BatchPlan, rank_slots: slice, node_slots: slice, stop_step: int) -> None:
        self._plan, self._rank_slots, self._node_slots = plan, rank_slots, node_slots
        self._stop_step = stop_step
        self._steps: deque[tuple[int, tuple[int, ...], frozenset[int]]] = deque()

    def needed_shards(self, step: int) -> NeededShards:
        """The shards needed at a step; steps must not go back by more than `KEPT_STEPS`."""
        stop = self._end_of_next_window(step)
        # The shards of earlier steps are kept, so that a call plans one new batch on average, not a window.
        begin = max(self._steps[-1][0] + 1 if self._steps else 0, step - KEPT_STEPS)
        for number in range(begin, stop):
            batch = self._plan.batch(number)
            rank, node = _shards(batch[self._rank_slots]), _shards(batch[self._node_slots])
            self._steps.append((number, rank, frozenset(node)))
        while self._steps and self._steps[0][0] < step - KEPT_STEPS:
            self._steps.popleft()
        ahead = dict.fromkeys(s for number, shards, _ in self._steps if number >= step for s in shards)
        return NeededShards(tuple(ahead), frozenset().union(*(node for *_, node in self._steps)))

    def window(self, step: int) -> tuple[int, int]:
        """Epoch and number of the last window that a step reads from."""
        return self._plan.windows(step)[-1]

    def _end_of_next_window(self, step: int) -> int:
        """The first step after the next window."""
        windows = {self.window(step)}
        stop = step + 1
        while stop < self._stop_step:
            windows |= set(self._plan.windows(stop))
            if len(windows) > 2 and stop > step + 1:
                break
            stop += 1
        return stop


def _shards(refs: SampleRefs) -> tuple[int, ...]:
    return tuple(np.unique(refs.shard).tolist())


class Prefetcher:
    """Threads that copy the shards needed next. The reader calls `set_step`.

    Every rank of a node has such threads. The locks of the cache divide the shards among them.
    """

    def __init__(self, cache: ShardCache, shards: Sequence[Shard], lookahead: Lookahead) -> None:
        self._cache, self._shards, self._lookahead = cache, shards, lookahead
        self._threads = [
            # Daemons: a fetch from a store that does not answer must not keep the process alive.
            threading.Thread(target=self._fetch_until_closed, name=f"prefetch-{n}", daemon=True)
            for n in range(SHARDS_AT_ONCE)
        ]
        self._step, self._ended = -1, False
        self._step_changed = threading.Condition()
        self._needed_shards = NeededShards((), frozenset())
        self._needed_paths: set[str] = set()
        self.notes: deque[str] = deque()
        """Lines for the user."""

    def set_step(self, step: int) -> None:
        """Note the step of the reader; the first call starts the threads."""
        if step == self._step:
            return
        # Before the threads wake up: they read both without a lock.
        self._needed_shards = self._lookahead.needed_shards(step)
        self._needed_paths = self._cache.paths([self._shards[i] for i in self._needed_shards.node])
        with self._step_changed:
            self._step = step
            self._step_changed.notify_all()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def stop(self) -> None:
        """Stop the threads; waits for running fetches, at most `LAST_FETCH_S` seconds in all."""
        with self._step_changed:
            self._ended = True
            self._step_changed.notify_all()
        until = time.monotonic() + LAST_FETCH_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))

    def _fetch_until_closed(self) -> None:
        """The thread's loop: fetch what the coming steps need, then wait for the next step."""
        while not self._ended:
            step, pause = self._step, self._fetch_needed()
            with self._step_changed:
                # The step may have changed during the pass: then the notification was before this wait.
                if not self._ended and self._step == step:
                    self._step_changed.wait(pause)

    def _fetch_needed(self) -> float | None:
        """One pass over the needed shards; returns the seconds to wait, None: until the next step."""
        first_step, pause = self._step, None
        try:
            shards = [self._shards[number] for number in self._needed_shards.rank]
            self._cache.fetch_indexes(shards, wait=False)
        except (RetfoundError, OSError):
            # Not reported from a thread: the reader gets the same error when it needs the index, and raises
            # it.
            return RETRY_SPACE_S
        for number in self._needed_shards.rank:
            # More than one step behind: another shard may be needed first now.
            if self._ended or self._step > first_step + 1:
                return 0.0
            shard = self._shards[number]
            if self._cache.path(shard):
                continue
            try:
                result = self._cache.fetch(shard, self._needed_paths, wait=False)
            except (RetfoundError, OSError):
                return RETRY_SPACE_S
            if result is FetchResult.NO_SPACE:
                self.notes.append(no_space_note(self._cache))
                return RETRY_SPACE_S
            if result is FetchResult.WRONG_BYTES:
                self.notes.append(f"{shard.name} differs from its manifest: its samples are read one by one")
            pause = RETRY_BUSY_S if result is FetchResult.BUSY else pause
        return pause


class FetchedShards:
    """The shards of a remote set for a reader: local copies, if they are complete.

    At the start no micro-batch waits for whole shards: its samples are read from the store one by one while
    the shards of the first window are fetched. Later micro-batches wait for the shards, so that nothing is
    read twice.
    """

    def __init__(
        self,
        cache: ShardCache,
        shards: Sequence[Shard],
        lookahead: Lookahead,
        prefetcher: Prefetcher | None,
    ) -> None:
        """`prefetcher`: threads of this process, if no other process fetches ahead."""
        self.url = cache.url
        self._cache, self._shards, self._lookahead, self._prefetcher = cache, shards, lookahead, prefetcher
        self._notes: deque[str] = prefetcher.notes if prefetcher else deque()
        self._first_window: tuple[int, int] | None = None
        # Starting: still in the first window, and every micro-batch so far has missed a shard.
        self._starting, self._missed_shard = True, False
        self._step, self._next_attempt = -1, 0.0

    def set_step(self, step: int) -> None:
        """Note the step of the reader."""
        if self._starting and step != self._step:
            window = self._lookahead.window(step)
            self._first_window = self._first_window or window
            self._starting = window == self._first_window
        self._step = step
        if self._prefetcher:
            self._prefetcher.set_step(step)

    def close(self) -> None:
        """Stop the threads."""
        if self._prefetcher:
            self._prefetcher.stop()

    def path(self, shard: Shard) -> str | None:
        """The path of the copy; None if samples have to be read from the store."""
        path = self._cache.path(shard)
        self._missed_shard = self._missed_shard or path is None
        if path or self._starting or time.monotonic() < self._next_attempt:
            return path
        # The copy is late: fetch it in this process, or wait for the process that fetches it.
        node = self._lookahead.needed_shards(self._step).node
        result = self._cache.fetch(shard, self._cache.paths([self._shards[i] for i in node]), wait=True)
        if result is FetchResult.NO_SPACE:
            self._next_attempt = time.monotonic() + RETRY_SPACE_S
            self._notes.append(no_space_note(self._cache))
        return self._cache.path(shard)

    def prepare(self, shards: Sequence[Shard]) -> None:
        """Fetch the missing indexes of all these shards in parallel."""
        self._cache.fetch_indexes(shards)

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""
        return self._cache.entries(shard)

    def report_damage(self, shard: Shard) -> None:
        """Remove a copy that has changed since it was fetched."""
        note = f"the copy of {shard.name} in {self._cache.folder} is damaged: fetched again"
        self._notes.append(note)
        self._cache.remove_copy(shard)

    def finish_batch(self) -> list[str]:
        """End a micro-batch and return the notes since the one before.

        The start is over once a micro-batch has missed no shard: from then on, micro-batches wait for shards.
        """
        self._starting, self._missed_shard = self._starting and self._missed_shard, False
        notes = []
        # Not `list` and `clear`: a note that a thread appends between these calls would be lost.
        while self._notes:
            notes.append(self._notes.popleft())
        return notes


def no_space_note(cache: ShardCache) -> str:
    """The message that shards cannot be kept, with the reason."""
    reason = cache.last_error or "there is no space"
    return f"shards cannot be kept in {cache.folder} ({reason}): reading samples directly from {cache.url}"
