"""Temporary folders that are removed even if their processes are killed."""

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

REMOVED_SUFFIX = ".gone"
_TMPDIR_ADVICE = "set TMPDIR to a folder on another disk"
_PYTHON_DEFAULTS = "/tmp", "/var/tmp", "/usr/tmp"
"""Folders that Python uses where it cannot write to $TMPDIR."""


class Scratch:
    """A folder below $TMPDIR that processes of the same `owner` on this node share.

    It is removed when its last process leaves. A folder that a crash left behind is removed by the next
    process that opens a folder of the same kind. A lock shows whether a folder is in use. It ends with its
    process.
    """

    def __init__(self, kind: str, owner: str, base_folder: str = "") -> None:
        """`base_folder`: a folder instead of $TMPDIR, where the disk or the length of the path matters."""
        base = os.path.join(base_folder or temporary_base(), f"retfound-{kind}-{os.getuid()}-")
        # First, because what dead processes left may fill the disk.
        _remove_unused_folders(base)
        self.folder = base + owner
        try:
            self._join()
        except OSError as error:
            raise StorageError(
                f"cannot keep temporary files in {self.folder}: {disk_errors.explain(error, self.folder)}; "
                f"{_TMPDIR_ADVICE}"
            ) from error

    def _join(self) -> None:
        """Create the folder, or join the processes that use it."""
        while True:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            try:
                self._lock_file = open(os.path.join(self.folder, ".users"), "w")  # noqa: SIM115  open until close()
            except FileNotFoundError:  # its last process removed it in between
                continue
            # A lock, because the kernel releases it when its process ends, in whatever way. Process numbers
            # prove nothing: they are used again, and containers that share a folder each count their own.
            fcntl.flock(self._lock_file, fcntl.LOCK_SH)
            if is_same_file(self._lock_file.fileno(), os.path.join(self.folder, ".users")):
                return
            self._lock_file.close()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the folder. The last process removes it."""
        if not self._lock_file.closed:
            _remove_unused(self.folder, self._lock_file.fileno())
            self._lock_file.close()


def temporary_base() -> str:
    """$TMPDIR, or Python's default. Raises StorageError where that folder cannot be written to.

    Python itself would silently use another folder, perhaps on a disk that is too small.
    """
    tmpdir = os.environ.get("TMPDIR", "")
    # A program that set `tempfile.tempdir` to another folder chose it. Python's defaults and the current
    # folder are not a choice, but fallbacks for a $TMPDIR that failed.
    if os.path.isdir(tmpdir) and tempfile.tempdir in (None, tmpdir, os.getcwd(), *_PYTHON_DEFAULTS):
        try:
            with tempfile.TemporaryFile(dir=tmpdir) as file:
                file.write(b"test")
                file.flush()
        except OSError as error:
            reason = disk_errors.explain(error, tmpdir)
            raise StorageError(
                f"TMPDIR={tmpdir} cannot be used: {reason}; set it to another folder"
            ) from error
        return os.path.abspath(tmpdir)
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise StorageError(f"{error.strerror}: set TMPDIR to a folder that can be written to") from error


@contextmanager
def new_temporary_folder(base_folder: str = "", prefix: str = "retfound-") -> Iterator[str]:
    """A folder that is removed when the block ends. Raises StorageError where its disk is full.

    `base_folder`: a folder instead of $TMPDIR.
    """
    parent = base_folder or temporary_base()
    with temporary_disk_errors(parent), tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        yield folder


@contextmanager
def temporary_disk_errors(folder: str) -> Iterator[None]:
    """Turns each error in the block that a full disk has caused into a StorageError that names the disk."""
    try:
        yield
    except StorageError as error:
        if (
            not disk_errors.is_machine_error(error.__cause__)
            or folder not in str(error)
            or "TMPDIR" in str(error)
        ):
            raise
        raise StorageError(f"{error}; {_TMPDIR_ADVICE}") from error.__cause__
    except Exception as error:
        disk_error = disk_errors.underlying_disk_error(error, folder)
        if disk_error is None:
            raise
        reason = disk_errors.explain(disk_error, folder)
        raise StorageError(f"cannot keep temporary files in {folder}: {reason}; {_TMPDIR_ADVICE}") from error


def _remove_unused_folders(base: str) -> None:
    """Remove this user's folders that no process uses."""
    for folder in Path(base).parent.glob(Path(base).name + "*"):
        if folder.name.endswith(REMOVED_SUFFIX):  # the process that removed it was killed
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with suppress(OSError), open(folder / ".users", "r+") as users:
            _remove_unused(str(folder), users.fileno())


def _remove_unused(folder: str, lock_file: int) -> None:
    """Removes a folder that no process uses. It is renamed first, so that a thread that still writes cannot
    keep it."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        removed_path = f"{folder}-{uuid.uuid4().hex}{REMOVED_SUFFIX}"
        os.rename(folder, removed_path)
        shutil.rmtree(removed_path, ignore_errors=True)


def is_same_file(descriptor: int, path: str) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
