"""A parallel map that keeps the order of its items and does not run far ahead of its reader."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

from retfound_dist.errors import RetfoundError
from retfound_dist.runtime import worker_leftovers
from retfound_dist.runtime.terminal import guard

A = TypeVar("A")
B = TypeVar("B")
CHUNK = 16
"""Items sent to a process at a time."""


def available_cores() -> int:
    """Cores this process may use."""
    # cpu_count() counts the whole machine; Slurm and taskset leave this process fewer. macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], workers: int, chunk: int = CHUNK
) -> Generator[B]:
    """`map(function, items)` over `workers` processes, in the order of the items.

    Results wait for at most two chunks a worker, so memory does not grow with the number of items.
    With one worker it all happens in this process. Close the iterator to stop the processes. Linear
    algebra keeps to one thread meanwhile: threads that wait for each other would take the workers' cores.
    """
    if workers <= 1:
        with threadpool_limits(1):
            yield from map(function, items)
        return
    # Spawned, not forked: this process may hold threads and open S3 connections.
    worker_leftovers.begin()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        # Two chunks a worker: one in work and one waiting, so that no worker idles while the reader writes.
        yield from _results(pool, function, _chunks(items, chunk), ahead=2 * workers)
    except BrokenProcessPool as error:
        raise RetfoundError(
            f"one of {workers} worker processes died (killed, or out of memory): run the same command again, "
            "with fewer workers if memory is short"
        ) from error
    finally:
        # Without cancelling, a budget that is spent or Ctrl-C would wait for all queued chunks.
        pool.shutdown(wait=True, cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor, function: Callable[[A], B], chunks: Iterator[list[A]], ahead: int
) -> Iterator[B]:
    waiting: deque[Future[list[B]]] = deque(pool.submit(_run, function, c) for c in islice(chunks, ahead))
    while waiting:
        yield from waiting.popleft().result()
        for chunk in islice(chunks, 1):
            waiting.append(pool.submit(_run, function, chunk))


def _chunks(items: Iterable[A], size: int) -> Iterator[list[A]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _run(function: Callable[[A], B], chunk: list[A]) -> list[B]:
    return [function(item) for item in chunk]


def _start_worker() -> None:
    """Sets up a worker: it ignores Ctrl-C, ends when its parent is killed, and uses one core."""
    import numpy  # noqa: F401  loaded, so that its library is there to be limited

    guard()
    threadpool_limits(1)
    # Ctrl-C reaches the whole process group; the parent alone stops the pool in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent killed by SIGKILL closes no pool: its workers would wait for work for ever.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
