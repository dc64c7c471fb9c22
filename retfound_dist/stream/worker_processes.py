"""Starts the processes of a stream, and ends them together with the process that reads from them."""

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
from retfound_dist.runtime.terminal import filter_output
from retfound_dist.stream.tensor_transfer import send_tensors_in_memory

PRELOAD = "retfound_dist.stream.loader"
READER_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that only the reading process handles: Slurm and torchrun send them to all processes."""
_LOADER_SEMAPHORES, _WORKER_SEMAPHORES = 8, 3
"""Semaphores of a DataLoader (torch 2.15), and of each of its processes. Each is a file in /dev/shm."""
# Parameters of mallopt(3), from glibc's malloc.h, because Python has no names for them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def fork_server(url: str) -> Any:
    """The multiprocessing context whose processes are forked from a server without threads and filesystems.

    The server imports the modules that reading from `url` needs, which saves each child half a second. It
    starts with `READER_SIGNALS` blocked: if it died, its children would exit too.
    """
    # Not `fork`: s3fs is not fork-safe, and a lock held by a thread at the fork stays locked in the child.
    # Not `spawn`: every child would import torch again.
    worker_leftovers.name_after_owner()
    forkserver.set_forkserver_preload([PRELOAD, "s3fs"] if url.startswith("s3://") else [PRELOAD])
    # Slurm's scancel signals every process of a job, the fork server included.
    with _signals_blocked(READER_SIGNALS):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _signals_blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Processes that are started within the block inherit blocked signals; here they arrive after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with _environment("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"):
            # The tracker removes what a killed process left behind, and would print a warning about it.
            resource_tracker.ensure_running()
        # Python 3.11 unblocks SIGINT and SIGTERM after it has started the tracker: block them again.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def explain_full_shm(workers: int, alternative: str = ", or set data.workers=0") -> Iterator[None]:
    """Raise DataError where the block cannot start processes because /dev/shm is full.

    Linux keeps a file there for each semaphore. `workers`: number of processes that the block starts.
    `alternative`: another remedy, added to the message.
    """
    shm = str(worker_leftovers.SHM)
    semaphores = _LOADER_SEMAPHORES + _WORKER_SEMAPHORES * workers
    # Checked before PyTorch's loader is created: an incomplete loader prints errors when it is deleted.
    shortage = disk_errors.space_shortage(shm, semaphores) if workers else ""
    if shortage:
        raise _full_shm_error(shortage, alternative)
    try:
        yield
    except OSError as error:
        raise _full_shm_error(disk_errors.explain(error, shm), alternative) from error


def _full_shm_error(reason: str, alternative: str) -> DataError:
    """The error of `explain_full_shm`. `reason`: what is full, with numbers."""
    return DataError(
        f"processes cannot be started: {reason}. Their semaphores are in {worker_leftovers.SHM}: "
        "remove unused files there, or give the container more space "
        f"(docker run --shm-size=1g){alternative}"
    )


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for processes that are started within the block."""
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
    """Prevent processes that are started within the block from importing the user's script.

    multiprocessing would import it in each child, so that a script without an `if __name__` guard would start
    itself again.
    """
    # multiprocessing uses these attributes to find the script (`spawn.get_preparation_data`).
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
    """Sets up a process. The reader creates it, and it contains the reader's settings for the store.

    The environment of the fork server may be older, from the time when it was started.
    """

    turns: str = field(default_factory=lambda: _turns_path())
    """The file with which the processes of a rank take turns in announcing a slow store."""
    environment: dict[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith("AWS_")}, repr=False
    )

    def __call__(self, _: int = 0) -> None:
        """Set up this process. The argument, a loader's worker number, is not used."""
        # Removed first: a variable that the reader has unset since could select another profile here.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(self.environment)
        slow_store.share_announcements(self.turns)
        _set_up_process()


def _turns_path() -> str:
    """Choose the file of turns, and use it in this process too. Returns its path."""
    path = os.path.join(util.get_temp_dir(), "turns")
    slow_store.share_announcements(path)
    return path


def _set_up_process() -> None:
    """Ignore Ctrl-C and a scheduler's signals, which are for the reading process, and end when that ends."""
    # A terminal sends Ctrl-C to all its processes. Ignored here too, because a process that was not started
    # by `fork_server` has no blocked signals.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    filter_output()
    sys.excepthook = _report_unless_reader_left
    # The processes already share the cores: more threads of torch would only compete for them.
    torch.set_num_threads(1)
    keep_freed_memory()
    send_tensors_in_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        # Blocked before the threads start, because they inherit it: only then `sigwaitinfo` gets every
        # signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, READER_SIGNALS)
        threading.Thread(target=_exit_on_sigterm_from, args=(parent.pid,), daemon=True).start()
        threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _report_unless_reader_left(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An `excepthook` that ignores errors after the reader has exited.

    The thread of multiprocessing that sends shared memory would print a traceback then.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _exit_on_sigterm_from(parent: int) -> None:
    """Exit only at the parent's SIGTERM. A SIGTERM from others, such as Slurm, is meant for the reader.

    This thread runs between two instructions of Python, so never while shared memory has a name.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    # Not sys.exit: it would only end this thread.
    os._exit(0)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next image: otherwise decoding a JPEG takes a fifth longer."""
    # Other C libraries have no mallopt: there decoding is only slower.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _exit_with_parent(parent: Any) -> None:
    """Wait until the reading process has ended, then exit. Without this a killed reader leaves orphans."""
    parent.join()
    # Not sys.exit: it would only end this thread.
    os._exit(1)
