"""Runs tasks in parallel processes. Each process gets a share of the cores and one of the GPUs, in turn.

One small model cannot use a whole machine: several models on one thread each finish sooner than one after the
other on all threads. The processes report progress to the display of this one through a queue.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing import get_context, parent_process
from queue import Empty
from typing import Any, TypeVar

import torch

from retfound_dist.runtime import worker_leftovers
from retfound_dist.runtime.host_cores import usable_cores
from retfound_dist.runtime.progress import ProgressDisplay
from retfound_dist.runtime.terminal import filter_output
from retfound_dist.runtime.worker_pool import WorkerPool

T = TypeVar("T")
_POLL_SECONDS = 0.2
"""Seconds to wait for a message before checking whether all processes have ended."""
# A global, because a process of a pool can only inherit a queue: it cannot be sent with a task.
_queue: Any = None
"""In a worker process: the queue for its messages."""


class QueueDisplay(ProgressDisplay):
    """Sends all progress to the display of the parent process."""

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
    tasks: Mapping[str, Callable[[ProgressDisplay], T]], jobs: int, threads: int, show: ProgressDisplay
) -> dict[str, T]:
    """Call each task with a display, `jobs` at a time, in processes. Returns the results by name.

    Tasks must be picklable (a `partial` of a module's function). `threads` are shared by all processes (0:
    all cores). Process i uses GPU i modulo the number of GPUs. Raises the first error of a task, after the
    other tasks have ended.
    """
    # Before the first semaphore exists, which the queue below makes.
    worker_leftovers.name_after_owner()
    # Not fork: a forked process cannot use CUDA, and inherits locks of torch's threads that stay closed.
    context = get_context("spawn")
    queue, process_counter = context.Queue(), context.Value("i", 0)
    jobs = min(jobs, len(tasks))
    share = max(1, (threads or int(usable_cores())) // jobs)
    with WorkerPool(jobs, context, _attach, (queue, process_counter, share)) as pool:
        futures = {name: pool.submit(_call, name, task) for name, task in tasks.items()}
        _listen(list(futures.values()), queue, show, len(tasks))
    return {name: future.result() for name, future in futures.items()}


def _attach(queue: Any, process_counter: Any, threads: int) -> None:
    """Set up a worker process: its messages, its number of threads, and its GPU.

    `process_counter`: shared by all workers; it gives each of them another number.
    """
    global _queue
    _queue = queue
    with process_counter.get_lock():
        process_index = process_counter.value
        process_counter.value += 1
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Lines that this process prints itself must pass the same mask for secrets.
    filter_output()
    # By default torch starts a thread for every core, in every process.
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(process_index % torch.cuda.device_count())


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, also within a task.

    Otherwise it would go on after a kill of its command, and write beside the command that is started again.
    """
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _call(name: str, task: Callable[[ProgressDisplay], T]) -> T:
    return task(QueueDisplay(name))


def _listen(futures: Sequence[Future[Any]], queue: Any, show: ProgressDisplay, task_count: int) -> None:
    """Show the messages of the processes until all tasks are done."""
    while True:
        # Checked before the queue is read, so that the last messages of a process are still shown.
        ended = all(future.done() for future in futures)
        try:
            name, *message = queue.get(timeout=_POLL_SECONDS)
        except Empty:
            if ended:
                return
            continue
        if len(message) == 1:
            show.say(f"{name}: {message[0]}")
        else:
            activity, done, total = message
            finished = sum(future.done() for future in futures)
            show.advance(finished, task_count, f"({name}: {activity}, {done:,}/{total:,})")
