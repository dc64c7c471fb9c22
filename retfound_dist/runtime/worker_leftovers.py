"""Names semaphores and sockets of worker processes after their owner, so that the next start can remove them.

Python names a semaphore `mp-RANDOM` and a folder of sockets `pymp-RANDOM`. After a kill -9 of a whole job
nobody knows whose they are. Here both are named after a file that their owner keeps locked while it lives. A
lock that can be acquired proves that the owner is dead. Process numbers prove nothing: they are used again,
and containers share /dev/shm while each counts its own. Files with other names are left alone.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import uuid
from contextlib import suppress
from multiprocessing import current_process, util
from pathlib import Path
from typing import IO, Any

from retfound_dist.errors import RetfoundError, StorageError
from retfound_dist.io.scratch import Scratch, is_same_file

SHM = Path("/dev/shm")
"""Where glibc keeps named semaphores (`sem.NAME`)."""
_MAX_FOLDER_BYTES = 107 - len("/listener-12345678")
"""Most bytes of a folder's path that leave room for a socket in it: unix(7)."""
_SHORT_FOLDERS = "/tmp", "/var/tmp", "/dev/shm"
"""Folders for sockets where the path of $TMPDIR is too long, or its disk is full."""
_owner_locks: dict[int, Any] = {}
"""By process number: the locks that the owner keeps until it ends."""


def name_after_owner() -> None:
    """Name this process's semaphores and sockets after it, and remove those of dead owners. Once a process.

    Call it before the first worker starts; workers inherit the names.
    """
    if os.getpid() in _owner_locks or current_process().name != "MainProcess":
        return
    # CPython 3.11 has no public setting for either name: `multiprocessing.synchronize` reads `semprefix` and
    # `multiprocessing.util` reads `tempdir` from this private table, which children inherit.
    settings: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
    _owner_locks[os.getpid()] = (_name_semaphores(settings), _name_sockets(settings))


def _name_semaphores(settings: dict[str, Any]) -> IO[bytes] | None:
    """Give semaphores a prefix by which a later process can remove them after a crash."""
    base = f"mp-retfound-{os.getuid()}-"
    with suppress(OSError):  # no /dev/shm, or one that is full: what needs it will say so
        remove_dead_owners(base)
        token = uuid.uuid4().hex[:12]
        owner = _locked_file(SHM / f"{base}{token}.owner")
        settings["semprefix"] = f"/{base}{token}"
        # multiprocessing cleans up its own at priority -100. The owner's file goes after that: without it,
        # what is still there would be nobody's.
        util.Finalize(None, _clean_up, (base, owner.name, os.getpid()), exitpriority=-200)
        return owner
    return None


def _name_sockets(settings: dict[str, Any]) -> Scratch | None:
    """Put the sockets of worker processes into a scratch folder whose path is short enough."""
    if settings.get("tempdir"):
        return None
    owner = uuid.uuid4().hex[:8]
    for place in (tempfile.gettempdir(), *_SHORT_FOLDERS):
        with suppress(RetfoundError, OSError):
            scratch = Scratch("mp", owner, place)
            if len(os.fsencode(scratch.folder)) <= _MAX_FOLDER_BYTES:
                settings["tempdir"] = scratch.folder
                util.Finalize(None, scratch.close, exitpriority=-200)
                return scratch
            scratch.close()
    if len(os.fsencode(tempfile.gettempdir())) + len("/pymp-12345678") > _MAX_FOLDER_BYTES:
        raise StorageError(
            "worker processes cannot be started: their sockets need a folder whose path has at most "
            f"{_MAX_FOLDER_BYTES} bytes. {tempfile.gettempdir()} is longer, and "
            f"{', '.join(_SHORT_FOLDERS)} cannot be written to: set TMPDIR to a folder with a shorter path"
        )
    return None


def remove_dead_owners(base: str) -> int:
    """Remove the semaphores of this user's dead owners. Returns the number of files removed."""
    removed = 0
    for path in SHM.glob(f"{base}*.owner"):
        with suppress(OSError), open(path, "rb+") as owner:
            # /dev/shm is shared by all users, and a name can be forged.
            if os.fstat(owner.fileno()).st_uid != os.getuid():
                continue
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it lives
            for name in [*SHM.glob(f"sem.{path.stem}-*"), path]:
                with suppress(OSError):
                    name.unlink()
                    removed += 1
    return removed


def _locked_file(path: Path) -> IO[bytes]:
    """A file that is locked while this process lives. Created again where a sweep removed it meanwhile."""
    while True:
        owner = open(path, "xb")  # noqa: SIM115  held until this process ends
        fcntl.flock(owner, fcntl.LOCK_EX)
        if is_same_file(owner.fileno(), str(path)):
            return owner
        owner.close()


def _clean_up(base: str, path: str, pid: int) -> None:
    """Remove this owner's file, and what owners have left that died since this one began.

    A worker of a process that was killed may live, and hold the lock, for seconds after the next start.
    """
    if os.getpid() == pid:
        with suppress(OSError):
            os.unlink(path)
            remove_dead_owners(base)
