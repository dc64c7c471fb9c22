"""Worker processes with a pipe each. A worker that is killed is an error, and never a wait without end.

Unlike `concurrent.futures.ProcessPoolExecutor` (CPython 3.11 to 3.14), whose workers share one pipe for their
results: one that is killed in the middle of a large result leaves half of it there, and the parent, which
holds the writing end too, waits for the rest for ever.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class WorkerPool:
    """Calls functions of modules in `workers` processes. A context manager: its end waits for all calls."""

    def __init__(
        self, workers: int, context: BaseContext, start: Callable[..., None], arguments: tuple[Any, ...] = ()
    ) -> None:
        """`start` is called with `arguments` in each process first."""
        self._context, self._start, self._arguments = context, start, arguments
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._processes: list[Any] = []
        self._lock = threading.Lock()
        self._broken = False
        self._threads = [threading.Thread(target=self._serve_worker, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in the next free process. BrokenProcessPool once a worker has died."""
        if self._broken:
            raise BrokenProcessPool("a worker process died")
        future: Future[T] = Future()
        self._tasks.put((future, function, arguments))
        # A worker may have died since the first look. Then no thread takes this call any more.
        if self._broken:
            self._end_waiting(_fail)
        return future

    def shutdown(self, cancel_waiting: bool = False) -> None:
        """End the processes after their calls; with `cancel_waiting` only after those that have begun."""
        if cancel_waiting:
            self._end_waiting(Future.cancel)
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve_worker(self) -> None:
        """One thread for each process: it sends a call, and waits for its result or for the process's end."""
        process: Any = None
        ours: Connection | None = None
        while (task := self._tasks.get()) is not None:
            future, function, arguments = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if ours is None:
                    process, ours = self._start_process()
                ours.send((function, arguments))
                succeeded, value = ours.recv()
            # The other end is closed by the process alone, so its death ends this wait, also within a result.
            except (EOFError, OSError) as error:
                self._break(future, error)
                break
            except Exception as error:  # what cannot be pickled
                future.set_exception(error)
                continue
            if succeeded:
                future.set_result(value)
            else:
                future.set_exception(value)
        if ours is not None:
            ours.close()
            process.join()

    def _start_process(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        with self._lock:
            process = self._context.Process(  # type: ignore[attr-defined]
                target=_work, args=(theirs, self._start, self._arguments)
            )
            process.start()
            theirs.close()
            self._processes.append(process)
        return process, ours

    def _break(self, future: Future[Any], error: Exception) -> None:
        """A process died: its call and all others fail, and the other processes end."""
        self._broken = True
        broken = BrokenProcessPool("a worker process died")
        broken.__cause__ = error
        future.set_exception(broken)
        self._end_waiting(_fail)
        with self._lock:
            for process in self._processes:
                process.terminate()

    def _end_waiting(self, end: Callable[[Future[Any]], object]) -> None:
        """Take all tasks that have not begun from the queue, and call `end` with the future of each."""
        stops = 0
        while True:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                break
            if task is None:
                stops += 1
            else:
                end(task[0])
        # The other threads still need their signal to stop.
        for _ in range(stops):
            self._tasks.put(None)


def _fail(future: Future[Any]) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(BrokenProcessPool("a worker process died"))


def _work(connection: Connection, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """The loop of a worker: it ends when its parent closes the pipe, or is gone."""
    start(*arguments)
    while True:
        try:
            function, given_arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, function(*given_arguments))
        except Exception as error:
            # The traceback itself cannot be sent.
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            answer = (False, error)
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            with suppress(OSError):
                connection.send((False, RuntimeError(f"the result cannot be sent: {error!r}")))
