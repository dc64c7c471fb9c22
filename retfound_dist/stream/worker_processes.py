"""Starts the stream's own processes, and ends them with the process that reads from them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker, util
from typing import Any

import torch

from retfound_dist.errors import DataError
from retfound_dist.io import disk_errors, slow_store
from retfound_dist.runtime import worker_leftovers
from retfound_dist.runtime.terminal import guard
from retfound_dist.stream.tensor_transfer import send_tensors_in_memory

PRELOAD = "retfound_dist.stream.loader"
READER_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that only the reading process answers: Slurm and torchrun send them to every process they find."""
_SEMAPHORES = 8, 3
"""Of a DataLoader (torch 2.15) and of each of its processes; each is a file in /dev/shm."""
# Numbers of mallopt(3), from glibc's malloc.h: Python has no names for them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def fork_server(url: str) -> Any:
    """The multiprocessing context whose processes are forked from a server without threads and filesystems.

    The server imports once what reading from `url` needs, which saves each child half a second. It starts
    here with `READER_SIGNALS` blocked: its children would take its death for the death of their reader.
    """
    # Not `fork`: s3fs is not fork-safe, and a lock held by a thread at the fork stays locked in the child.
    # Not `spawn`: every child would import torch again.
    worker_leftovers.begin()
    forkserver.set_forkserver_preload([PRELOAD, "s3fs"] if url.startswith("s3://") else [PRELOAD])
    # Slurm's scancel signals every process of a job, the fork server included.
    with _signals_blocked(READER_SIGNALS):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _signals_blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Processes started meanwhile inherit that these signals are blocked; here they arrive afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with _environment("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"):
            # The tracker removes what a killed process left, and would warn about it on the user's
            # terminal.
            resource_tracker.ensure_running()
        # Python 3.11 unblocks SIGINT and SIGTERM after it has started the tracker: block them again.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def semaphores_explained(workers: int, or_else: str = ", or set data.workers=0") -> Iterator[None]:
    """DataError where processes cannot be set up because /dev/shm, which holds semaphores, is full.

    `or_else`: what may be done besides making room.
    """
    try:
        # Before the loader is made: PyTorch's half-made loader complains on the terminal when it is
        # dropped.
        if workers:
            disk_errors.check_room(str(worker_leftovers.SHM), _SEMAPHORES[0] + _SEMAPHORES[1] * workers)
        yield
    except OSError as error:
        where = str(worker_leftovers.SHM)
        raise DataError(
            f"processes cannot be started: {disk_errors.explain(error, where)}. "
            f"Their semaphores stand in {where}: "
            f"remove what is not used there, or give the container more (docker run --shm-size=1g){or_else}"
        ) from error


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable for the processes that are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep processes that are started meanwhile from running the user's script, of which they need nothing.

    multiprocessing would import it in each child, so that a script without an `if __name__` guard starts
    itself again.
    """
    # What multiprocessing looks at to find the script (`spawn.get_preparation_data`).
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    main.__spec__ = None
    if file is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


@dataclass(frozen=True)
class WorkerSetup:
    """Sets up a process. It is made by the reader, and carries the reader's settings for the store.

    The fork server still has the environment it was started with, which may be an older one.
    """

    turns: str = field(default_factory=lambda: _turns_path())
    """The file by which the processes of a rank take turns in saying what they wait for."""
    environment: dict[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith("AWS_")}, repr=False
    )

    def __call__(self, _: int = 0) -> None:
        """Set up this process. The argument is a loader's worker number, not used."""
        # Removed first: a variable that the reader has unset since would still choose another profile here.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(self.environment)
        slow_store.share_announcements(self.turns)
        _set_up_process()


def _turns_path() -> str:
    path = os.path.join(util.get_temp_dir(), "turns")
    slow_store.share_announcements(path)
    return path


def _set_up_process() -> None:
    """Leave Ctrl-C and a scheduler's signals to the reading process, and end when it ends."""
    # A terminal sends Ctrl-C to all its processes. Ignored here too, because another context than
    # `fork_server` may have made this process, with nothing blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard()
    sys.excepthook = _report_unless_reader_left
    # The processes share the cores already: threads of torch's own would only compete for them.
    torch.set_num_threads(1)
    keep_memory()
    send_tensors_in_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        # Blocked before the threads begin, which inherit it: only then does `sigwaitinfo` get every signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, READER_SIGNALS)
        threading.Thread(target=_exit_on_sigterm_from, args=(parent.pid,), daemon=True).start()
        threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _report_unless_reader_left(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An `excepthook` that says nothing of a reader that leaves in the middle.

    multiprocessing's thread that hands shared memory over would print a traceback of it.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _exit_on_sigterm_from(parent: int) -> None:
    """Leave at the parent's SIGTERM only. One from anybody else, such as Slurm, is meant for the reader.

    This thread runs between two instructions of Python, so never while shared memory has a name.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    # Not sys.exit: it would end this thread only.
    os._exit(0)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next image: giving it back costs a fifth of a JPEG's decoding."""
    # Other C libraries have no mallopt: there it is slower, and no less right.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _exit_with_parent(parent: Any) -> None:
    parent.join()
    os._exit(1)
