"""Temporary folders that are removed even when their processes are killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retfound_dist.errors import StorageError
from retfound_dist.io import disk_errors

GONE = ".gone"
_ELSEWHERE = "set TMPDIR to a folder on another disk"
_PYTHON_DEFAULTS = "/tmp", "/var/tmp", "/usr/tmp"
"""Where Python puts temporary files that $TMPDIR does not take."""


class Scratch:
    """A folder below $TMPDIR that processes of the same `owner` on this node share.

    It exists from the first of them to the last. What a crash leaves behind is removed by the next process
    that opens a folder of this kind here. A lock shows whether a folder is in use; it ends with its holder.
    """

    def __init__(self, kind: str, owner: str, below: str = "") -> None:
        """`below`: another folder than $TMPDIR, where its disk or the length of its path matters."""
        base = os.path.join(below or temporary_folder(), f"retfound-{kind}-{os.getuid()}-")
        # First what dead processes have left: it may be what fills the disk.
        _sweep(base)
        self.folder = base + owner
        try:
            self._enter()
        except OSError as error:
            raise StorageError(
                f"cannot keep temporary files in {self.folder}: {disk_errors.explain(error, self.folder)}; "
                f"{_ELSEWHERE}"
            ) from error

    def _enter(self) -> None:
        """Create the folder, or join the processes that use it."""
        while True:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            try:
                self._users = open(os.path.join(self.folder, ".users"), "w")  # noqa: SIM115  held until close
            except FileNotFoundError:  # its last user removed it in between
                continue
            # A lock, because the kernel ends it with its holder, however that dies. Process numbers prove
            # nothing: they come again, and containers that share a folder count their own.
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if is_same_file(self._users.fileno(), os.path.join(self.folder, ".users")):
                return
            self._users.close()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the folder. The last process removes it."""
        if not self._users.closed:
            _remove_unused(self.folder, self._users.fileno())
            self._users.close()


def temporary_folder() -> str:
    """$TMPDIR, or Python's default. Raises StorageError where that folder cannot be written to.

    Python itself would silently go on elsewhere, perhaps on a disk that is too small.
    """
    wanted = os.environ.get("TMPDIR", "")
    # A program that set `tempfile.tempdir` to another folder meant it. Python's defaults and the current
    # folder are its fallbacks for a $TMPDIR that failed, and are no choice of anybody.
    if os.path.isdir(wanted) and tempfile.tempdir in (None, wanted, os.getcwd(), *_PYTHON_DEFAULTS):
        try:
            with tempfile.TemporaryFile(dir=wanted) as file:
                file.write(b"room")
                file.flush()
        except OSError as error:
            why = disk_errors.explain(error, wanted)
            raise StorageError(f"TMPDIR={wanted} cannot be used: {why}; set it to another folder") from error
        return os.path.abspath(wanted)
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise StorageError(f"{error.strerror}: set TMPDIR to a folder that can be written to") from error


@contextmanager
def temporary(below: str = "", prefix: str = "retfound-") -> Iterator[str]:
    """A folder that is removed when the block ends. Raises StorageError where its disk is full.

    `below`: another folder than $TMPDIR.
    """
    base = below or temporary_folder()
    with disk_named(base), tempfile.TemporaryDirectory(prefix=prefix, dir=base) as folder:
        yield folder


@contextmanager
def disk_named(folder: str) -> Iterator[None]:
    """Turns any error in the block that a full disk has caused into a StorageError that names the disk."""
    try:
        yield
    except StorageError as error:
        if (
            not disk_errors.is_disk_trouble(error.__cause__)
            or folder not in str(error)
            or "TMPDIR" in str(error)
        ):
            raise
        raise StorageError(f"{error}; {_ELSEWHERE}") from error.__cause__
    except Exception as error:
        trouble = disk_errors.trouble_behind(error, folder)
        if trouble is None:
            raise
        why = disk_errors.explain(trouble, folder)
        raise StorageError(f"cannot keep temporary files in {folder}: {why}; {_ELSEWHERE}") from error


def _sweep(base: str) -> None:
    """Remove this user's folders that no process uses any more."""
    for folder in Path(base).parent.glob(Path(base).name + "*"):
        if folder.name.endswith(GONE):  # whoever removed it was killed meanwhile
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with suppress(OSError), open(folder / ".users", "r+") as users:
            _remove_unused(str(folder), users.fileno())


def _remove_unused(folder: str, users: int) -> None:
    """Removes a folder without users. Renamed first, it cannot be kept by a thread that still writes."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = f"{folder}-{uuid.uuid4().hex}{GONE}"
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def is_same_file(descriptor: int, path: str) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
