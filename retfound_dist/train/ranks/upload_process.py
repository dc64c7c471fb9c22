"""A process for slow work at the run's store: uploads, commits, logs.

It runs calls one after the other, in their order, and ends with its rank. A process, not a thread: a thread
would hold Python's global lock while it hashes and sends, and delay training. The order matters: when a
commit is written, everything submitted before it has been written.
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
    explain_full_shm,
    fork_server,
    hide_main_module,
)

T = TypeVar("T")
FILES_AT_ONCE = 8
"""Files of a folder that are uploaded or downloaded at the same time."""


class UploadProcess:
    """Controls the upload process of a rank."""

    def __init__(self, run_url: str) -> None:
        with explain_full_shm(1, alternative=""):
            self._pool = ProcessPoolExecutor(
                1, mp_context=fork_server(run_url), initializer=_initialise, initargs=(WorkerSetup(),)
            )
            # A pool starts its process at the first call. That takes seconds, so start it before the model is
            # built.
            self.submit(os.getpid)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Call a module's function in the process; if the process has died, the future has the error."""
        try:
            # By default a child imports the main module of its parent, which would be this whole program.
            with hide_main_module():
                return self._pool.submit(function, *args)
        except BrokenProcessPool as error:
            failed: Future[T] = Future()
            failed.set_exception(error)
            return failed

    def finish(self) -> None:
        """End the process when all calls are done."""
        self._pool.shutdown(wait=True)

    def terminate(self) -> None:
        """End the process at once, even during a call: for a rank that leaves with an error."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _initialise(worker_setup: WorkerSetup) -> None:
    worker_setup()
    # Few, because `call_with_retries` tries again, for as long as the user wants to wait.
    storage.ATTEMPTS = 2


def failure_text(call: Future[Any]) -> str:
    """Why a call failed; empty when it did not."""
    error = call.exception()
    if error is None:
        return ""
    if isinstance(error, BrokenProcessPool):
        return "the upload process was killed, probably because memory ran out"
    if isinstance(error, (RetfoundError, OSError)):
        return str(error)
    raise error


def upload(folder: str, url: str, patience_s: float, mark: str = "") -> dict[str, FileInfo]:
    """Upload all files below a folder except DeepSpeed's helper scripts, and check that they arrived.

    Returns them by their name below the URL. The `mark` of a save becomes a part of the name.
    """
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.suffix != ".py"]
    names = [path.relative_to(folder).as_posix() for path in paths]
    names = [checkpoint_folder.name_with_mark(name, mark) if mark else name for name in names]
    put = partial(_upload_file, url=url, patience_s=patience_s)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return dict(zip(names, pool.map(put, paths, names), strict=True))


def _upload_file(path: Path, name: str, url: str, patience_s: float) -> FileInfo:
    """Upload one file; a file that arrives damaged is sent again, like one that does not arrive."""
    return call_with_retries(
        lambda: verified_files.upload_verified(str(path), storage.join(url, name)), Patience(url, patience_s)
    )


def append_rows(url: str, name: str, rows: Sequence[Mapping[str, Any]], patience_s: float) -> None:
    """Append rows to one of the run's logs."""
    writer = _log_writer(storage.join(url, name))
    call_with_retries(lambda: writer.append(rows), Patience(url, patience_s))


@cache
def _log_writer(url: str) -> LogWriter:
    """The only writer of a log in this process: it keeps what it has written."""
    return LogWriter(url)


def refresh_summary(url: str) -> None:
    """Update the run's summary file."""
    run_summary.refresh(url)


def copy_folder(folder: str, url: str) -> None:
    """Copy a folder while it is written; later changes are left for the next copy."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            storage.put_file(os.fspath(path), storage.join(url, path.relative_to(folder).as_posix()))
