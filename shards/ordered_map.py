"""A parallel map that keeps the order of its items and holds few results at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

from retfound_dist.errors import RetfoundError
from retfound_dist.runtime import worker_leftovers
from retfound_dist.runtime.terminal import filter_output
from retfound_dist.runtime.worker_pool import WorkerPool

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 16
"""Items sent to a process at a time."""


def available_cores() -> int:
    """The number of cores this process may use."""
    # cpu_count() counts the whole machine; Slurm and taskset allow fewer. macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, chunk: int = CHUNK
) -> Generator[Result]:
    """`map(function, items)` over `workers` processes, in the order of the items.

    At most two chunks per worker are in memory, so memory does not grow with the number of items. With one
    worker everything runs in this process. Close the iterator to stop the processes. Linear algebra uses one
    thread in the meantime, because its waiting threads would take the workers' cores.
    """
    if workers <= 1:
        with threadpool_limits(1):
            yield from map(function, items)
        return
    # Spawned, not forked: this process may hold threads and open S3 connections.
    worker_leftovers.name_after_owner()
    context = multiprocessing.get_context("spawn")
    pool = WorkerPool(workers, context, _start_worker)
    try:
        # Two chunks per worker: one in progress and one waiting, so that no worker is idle.
        yield from _ordered_results(pool, function, _chunks(items, chunk), ahead=2 * workers)
    except BrokenProcessPool as error:
        raise RetfoundError(
            f"one of {workers} worker processes died (killed, or out of memory): run the same command again, "
            "with fewer workers if memory is full"
        ) from error
    finally:
        # Without cancelling, an error or Ctrl-C would wait for all queued chunks.
        pool.shutdown(cancel_waiting=True)


def _ordered_results(
    pool: WorkerPool, function: Callable[[Item], Result], chunks: Iterator[list[Item]], ahead: int
) -> Iterator[Result]:
    """Yields the results in order, with at most `ahead` chunks in the pool at once."""
    waiting: deque[Future[list[Result]]] = deque(
        pool.submit(_map_chunk, function, c) for c in islice(chunks, ahead)
    )
    while waiting:
        yield from waiting.popleft().result()
        for chunk in islice(chunks, 1):
            waiting.append(pool.submit(_map_chunk, function, chunk))


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _map_chunk(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _start_worker() -> None:
    """Sets up a worker: it ignores Ctrl-C, ends when its parent is killed, and uses one core."""
    import numpy  # noqa: F401  threadpool_limits affects only libraries that are loaded

    filter_output()
    threadpool_limits(1)
    # Ctrl-C reaches the whole process group, but only the parent can stop the pool in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent killed by SIGKILL closes no pool, and its workers would wait for ever.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
