"""How the stream's own processes begin and end: with the process that reads from them."""

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
from retfound_dist.stream.tensor_transfer import hand_over_in_memory

PRELOAD = "retfound_dist.stream.loader"
NOT_THEIRS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that only the reading process answers: Slurm and torchrun send them to every process they find."""
_SEMAPHORES = 8, 3
"""Of a DataLoader (torch 2.15) and of each of its processes; each is a file."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def fork_server(url: str) -> Any:
    """The multiprocessing context: children of a server that holds neither threads nor a filesystem.

    What reading from `url` needs is imported there once, which spares each child half a second. The server
    starts here, deaf to `NOT_THEIRS`: its children would take its death for that of their reader.
    """
    worker_leftovers.begin()
    forkserver.set_forkserver_preload([PRELOAD, "s3fs"] if url.startswith("s3://") else [PRELOAD])
    with _held_back(NOT_THEIRS):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _held_back(signals: set[signal.Signals]) -> Iterator[None]:
    """What is started meanwhile inherits that these signals are blocked; here they arrive afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with _environment("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"):
            resource_tracker.ensure_running()  # it tidies up after a killed process, and would complain of it
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # starting the tracker has let some through again
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def semaphores_explained(workers: int) -> Iterator[None]:
    """DataError where loader processes cannot be set up because /dev/shm, which holds semaphores, is full."""
    try:
        if workers:  # first, because PyTorch's half-made loader complains when it is dropped
            disk_errors.check_room(str(worker_leftovers.SHM), _SEMAPHORES[0] + _SEMAPHORES[1] * workers)
        yield
    except OSError as error:
        where = str(worker_leftovers.SHM)
        raise DataError(
            f"processes cannot be started: {disk_errors.explain(error, where)}. "
            f"Their semaphores stand in {where}: "
            "remove what is not used there, give the container more (docker run --shm-size=1g), or set "
            "data.workers=0"
        ) from error


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable for processes that are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Loader processes need nothing of the user's script, so they must not run it (multiprocessing would)."""
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
class Begin:
    """What a process does first; made by its reader, whose settings for the store it takes along.

    The fork server has the environment it was started with, which may be an older one.
    """

    turns: str = field(default_factory=lambda: _turns())
    """Where the processes of a rank take turns in saying what they wait for."""
    environment: dict[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith("AWS_")}, repr=False
    )

    def __call__(self, _: int = 0) -> None:
        """Set up this process."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(self.environment)
        slow_store.share(self.turns)
        _begin_process()


def _turns() -> str:
    path = os.path.join(util.get_temp_dir(), "turns")
    slow_store.share(path)
    return path


def _begin_process() -> None:
    """Set up: Ctrl-C and a scheduler's signals are the reading process's to answer; nobody survives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where another context than `fork_server` made it
    guard()
    sys.excepthook = _unless_reader_left
    torch.set_num_threads(1)
    keep_memory()
    hand_over_in_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, NOT_THEIRS)
        threading.Thread(target=_obey, args=(parent.pid,), daemon=True).start()
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _unless_reader_left(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """multiprocessing's thread that hands shared memory over reports a reader that leaves in the middle."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _obey(parent: int) -> None:
    """Leave when the parent says so: others (Slurm signals all it finds) ask for the last steps to be saved.

    The thread runs between two instructions of Python, so never while shared memory has a name.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next image: giving it back costs a fifth of a JPEG's decoding."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
