"""Fine-tunings at the same time, each in a process of its own with its share of the cores, on GPUs in turn.

Small models do not fill a machine one after the other: on one thread each they end sooner than one by one on
all threads. What the processes have to say reaches this one's display through a queue.
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
"""Seconds between two looks at what the processes said."""
_queue: Any = None
"""In such a process: where its words go."""


class QueueDisplay(ProgressDisplay):
    """A display that hands everything on to the process that started this one."""

    def __init__(self, name: str) -> None:
        super().__init__(quiet=True)
        self.name, self.activity = name, ""

    def say(self, text: str) -> None:
        """A line that stays on screen."""
        _queue.put((self.name, text))

    def begin(self, what: str, since: float | None = None) -> None:
        """Something new is under way."""
        self.activity = what

    def advance(self, done: int, total: int, note: str = "") -> None:
        """How far it is."""
        _queue.put((self.name, self.activity, done, total))


def run_beside(
    work: Mapping[str, Callable[[ProgressDisplay], T]], jobs: int, threads: int, show: ProgressDisplay
) -> dict[str, T]:
    """Call each piece of work with a display, `jobs` at a time, in processes; what each gave, by name.

    Work must be picklable (a `partial` of a module's function). `threads` are shared by all (0: all cores);
    process i uses GPU i modulo their number. Raises what a piece raises, after the others' end.
    """
    worker_leftovers.begin()
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
    guard()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())


def _call(name: str, piece: Callable[[ProgressDisplay], T]) -> T:
    return piece(QueueDisplay(name))


def _listen(futures: Sequence[Future[Any]], queue: Any, show: ProgressDisplay, parts: int) -> None:
    """Show what the processes say until all are done; `parts` is how many pieces of work there are."""
    while True:
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
