"""Runs fine-tunings in parallel, each in a process with its share of the cores, on the GPUs in turn.

One small model does not fill a machine: several on one thread each finish sooner than one by one on all
threads. Progress of the processes reaches the display of this one through a queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from queue import Empty
from typing import Any, TypeVar

import torch

from retfound_dist.runtime import worker_leftovers
from retfound_dist.runtime.progress import ProgressDisplay
from retfound_dist.runtime.terminal import guard

T = TypeVar("T")
_LOOK = 0.2
"""Seconds to wait for a message before looking whether all processes have ended."""
# A global, because a queue can be inherited by a process of a pool but not be sent to it with its work.
_queue: Any = None
"""In a started process: the queue for its messages."""


class QueueDisplay(ProgressDisplay):
    """Sends everything to the display of the process that started this one."""

    def __init__(self, name: str) -> None:
        super().__init__(quiet=True)
        self.name, self.activity = name, ""

    def say(self, text: str) -> None:
        """A line that stays on screen."""
        _queue.put((self.name, text))

    def begin(self, title: str, unit: str = "", **timing: Any) -> None:
        """Start a new task."""
        self.activity = title

    def advance(self, done: int, total: int, note: str = "", **numbers: Any) -> None:
        """Show how much is done."""
        _queue.put((self.name, self.activity, done, total))


def run_in_parallel(
    work: Mapping[str, Callable[[ProgressDisplay], T]], jobs: int, threads: int, show: ProgressDisplay
) -> dict[str, T]:
    """Call each piece of work with a display, `jobs` at a time, in processes; returns results by name.

    Work must be picklable (a `partial` of a module's function). `threads` are shared by all (0: all cores);
    process i uses GPU i modulo their number. Raises the first error of a piece, after the others have ended.
    """
    # Before the queue below makes the first semaphore.
    worker_leftovers.begin()
    # A forked process cannot use CUDA and inherits locks of torch's threads, which nobody opens again.
    context = get_context("spawn")
    queue, places = context.Queue(), context.Value("i", 0)
    jobs = min(jobs, len(work))
    share = max(1, (threads or len(os.sched_getaffinity(0))) // jobs)
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_attach, initargs=(queue, places, share)
    ) as pool:
        futures = {name: pool.submit(_call, name, piece) for name, piece in work.items()}
        _listen(list(futures.values()), queue, show, len(work))
    return {name: future.result() for name, future in futures.items()}


def _attach(queue: Any, places: Any, threads: int) -> None:
    global _queue
    _queue = queue
    with places.get_lock():
        place, places.value = places.value, places.value + 1
    # What such a process prints itself must pass the same mask of secrets.
    guard()
    # torch would start a thread for every core in every process.
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())


def _call(name: str, piece: Callable[[ProgressDisplay], T]) -> T:
    return piece(QueueDisplay(name))


def _listen(futures: Sequence[Future[Any]], queue: Any, show: ProgressDisplay, parts: int) -> None:
    """Show the messages of the processes until all are done; `parts`: number of pieces of work."""
    while True:
        # Asked before the queue is read: what a process said just before it ended is still shown.
        ended = all(future.done() for future in futures)
        try:
            name, *message = queue.get(timeout=_LOOK)
        except Empty:
            if ended:
                return
            continue
        if len(message) == 1:
            show.say(f"{name}: {message[0]}")
        else:
            activity, now, total = message
            show.advance(
                sum(future.done() for future in futures), parts, f"({name}: {activity}, {now} of {total})"
            )
