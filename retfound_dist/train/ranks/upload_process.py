"""A process for what takes time at the run's store: uploads, commits, logs.

It works off calls one after the other, in their order, and ends with its rank. A process, not a thread:
beside the training loop a thread would hold Python's lock while it hashes and sends. In order: a commit then
finds everything written that was handed over before it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from retfound_dist.errors import RetfoundError
from retfound_dist.formats import checkpoint_folder, run_summary
from retfound_dist.formats.log_writer import LogWriter
from retfound_dist.io import storage, verified_files
from retfound_dist.io.retry import Patience, call_with_retries
from retfound_dist.io.storage import FileInfo
from retfound_dist.stream.worker_processes import (
    WorkerSetup,
    fork_server,
    hide_main_module,
    semaphores_explained,
)

T = TypeVar("T")
FILES_AT_ONCE = 8
"""Files of a folder that are sent or fetched side by side."""


class UploadProcess:
    """The rank's handle on its upload process."""

    def __init__(self, run_url: str) -> None:
        with semaphores_explained(1, or_else=""):
            self._pool = ProcessPoolExecutor(
                1, mp_context=fork_server(run_url), initializer=_begin, initargs=(WorkerSetup(),)
            )
            # A pool starts its process with the first call. That takes seconds, in which the model is built.
            self.submit(os.getpid)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Have a module's function called there; where the process is gone, the future has the error."""
        try:
            # A child imports the main module of its parent by default: that would be all of this program once
            # more.
            with hide_main_module():
                return self._pool.submit(function, *args)
        except BrokenProcessPool as error:
            failed: Future[T] = Future()
            failed.set_exception(error)
            return failed

    def end(self) -> None:
        """End it once all calls are done."""
        self._pool.shutdown(wait=True)

    def abandon(self) -> None:
        """End it at once, in the middle of a call: for a rank that is about to leave with an error."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _begin(begin: WorkerSetup) -> None:
    begin()
    # Few: `call_with_retries` tries again, and knows how long a user wants to wait.
    storage.ATTEMPTS = 2


def failure_text(done: Future[Any]) -> str:
    """Why a call failed; empty when it did not."""
    error = done.exception()
    if error is None:
        return ""
    if isinstance(error, BrokenProcessPool):
        return "the process that writes to the run's store died: was memory short?"
    if isinstance(error, (RetfoundError, OSError)):
        return str(error)
    raise error


def upload(folder: str, url: str, patience_s: float, mark: str = "") -> dict[str, FileInfo]:
    """Copy all files below a folder, but DeepSpeed's helper scripts, and check that they arrived.

    Gives them by their name below the URL, which is marked as one save's where there is a `mark`.
    """
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.suffix != ".py"]
    names = [path.relative_to(folder).as_posix() for path in paths]
    names = [checkpoint_folder.name_with_mark(name, mark) if mark else name for name in names]
    put = partial(_put, url=url, patience_s=patience_s)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return dict(zip(names, pool.map(put, paths, names), strict=True))


def _put(path: Path, name: str, url: str, patience_s: float) -> FileInfo:
    """Send one file; what arrives damaged is sent again, as what does not arrive."""
    return call_with_retries(
        lambda: verified_files.upload_verified(str(path), storage.join(url, name)), Patience(url, patience_s)
    )


def append(url: str, name: str, rows: Sequence[Mapping[str, Any]], patience_s: float) -> None:
    """Add lines to one of the run's logs."""
    writer = _writer(storage.join(url, name))
    call_with_retries(lambda: writer.add(rows), Patience(url, patience_s))


@cache
def _writer(url: str) -> LogWriter:
    """The one writer of a log in this process: it remembers what it has written."""
    return LogWriter(url)


def refresh_summary(url: str) -> None:
    """Bring the run's small summary up to date."""
    run_summary.refresh(url)


def copy_folder(folder: str, url: str) -> None:
    """Copy a folder that is written to meanwhile; what comes later is left for the next copy."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            storage.put_file(os.fspath(path), storage.join(url, path.relative_to(folder).as_posix()))
