"""Rows of a comparison at the same time, each in a process of its own with its share of the cores.

Small models do not fill a machine one after the other: rows on one thread each end sooner than rows one
by one on all threads. What the processes have to say reaches this one's display through a queue.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from queue import Empty
from typing import Any

import torch

from retfound_dist.evaluate.external import load_with_external
from retfound_dist.evaluate.progress import Display
from retfound_dist.evaluate.row import make_row
from retfound_dist.evaluate.start import open_start
from retfound_dist.schema import EvaluateConfig

_LOOK = 0.2
"""Seconds between two looks at what the processes said."""
_queue: Any = None
"""In a row's process: where its words go."""


class Relay(Display):
    """A display that hands everything on to the process that started this one."""

    def __init__(self, name: str) -> None:
        super().__init__(quiet=True)
        self.name, self.what = name, ""

    def say(self, text: str) -> None:
        """A line that stays on screen."""
        _queue.put((self.name, text))

    def begin(self, what: str) -> None:
        """Something new is under way."""
        self.what = what

    def advance(self, done: int, total: int, note: str = "") -> None:
        """How far it is."""
        _queue.put((self.name, self.what, done, total))


def make_rows(rows: dict[str, EvaluateConfig], jobs: int, threads: int, show: Display) -> None:
    """Evaluate rows into their folders, `jobs` at a time; raises what a row raises, after the others' end."""
    context = get_context("spawn")
    queue = context.Queue()
    jobs = min(jobs, len(rows))
    share = max(1, (threads or len(os.sched_getaffinity(0))) // jobs)
    show.begin(f"fine-tuning {', '.join(rows)} side by side")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_attach, initargs=(queue,)) as pool:
        futures = [pool.submit(_make, name, config, share) for name, config in rows.items()]
        _listen(futures, queue, show, sum(len(config.seeds) for config in rows.values()))
    for future in futures:
        future.result()


def _attach(queue: Any) -> None:
    global _queue
    _queue = queue


def _make(name: str, config: EvaluateConfig, threads: int) -> None:
    torch.set_num_threads(threads)
    start = open_start(config.checkpoint, config.model)
    make_row(start, load_with_external(config.data, config.external, start.image_size), config, Relay(name))


def _listen(futures: Sequence[Future[None]], queue: Any, show: Display, parts: int) -> None:
    """Show what the rows say until all are done; `parts` is how many fine-tunings there are."""
    done: dict[tuple[str, str], float] = {}
    while True:
        ended = all(future.done() for future in futures)
        try:
            name, *said = queue.get(timeout=_LOOK)
        except Empty:
            if ended:
                return
            continue
        if len(said) == 1:
            show.say(f"{name}: {said[0]}")
        else:
            done[name, said[0]] = said[1] / said[2]
            show.advance(round(1000 * sum(done.values())), 1000 * parts)
