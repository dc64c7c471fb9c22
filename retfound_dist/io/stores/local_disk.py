"""Reads, writes and lists files of a local disk. A file written here is whole, or it does not exist."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

STABLE_AFTER_S = 2.0
"""A younger file may be written again without its times changing: file systems' clocks are coarse."""


def draft_beside(path: str) -> str:
    """A new name beside a path, in a folder that exists."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return _part_name(path)


def finish_draft(draft: str, path: str) -> None:
    """Rename a written file to its path, once the disk has its content."""
    with open(draft, "rb+") as file:
        # Without fsync the rename may reach the disk before the data: after a power cut the name would stand
        # on an empty file.
        os.fsync(file.fileno())
    os.replace(draft, path)


@contextmanager
def part_file(path: str) -> Iterator[str]:
    """A name to write to. The file is renamed to `path` at the end, and removed after an error."""
    part = _part_name(path)
    try:
        yield part
        os.replace(part, path)
    # Also on KeyboardInterrupt: nobody would ever remove the part.
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part)
        raise


def _part_name(path: str) -> str:
    # Beside the target, because a rename works within one file system only. With a name of its own, because
    # several processes may write the same target.
    return f"{path}.{uuid.uuid4().hex[:8]}.tmp"


def delete_old_drafts(folder: str, before: float, names: str) -> None:
    """Delete the unfinished files of files whose names match, last written before a time (`time.time()`).

    A process that is killed while it writes leaves them. `names`: a regular expression.
    """
    draft = re.compile(rf"(?:{names})\.[0-9a-f]{{8}}\.tmp")
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if draft.fullmatch(entry.name) and entry.stat().st_mtime < before:
                os.unlink(entry.path)


class LocalDisk:
    """The local disk as a store. Paths are absolute."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""
        return os.path.exists(path)

    def is_folder(self, path: str) -> bool:
        """Whether the path is a folder."""
        return os.path.isdir(path)

    def is_root(self, path: str) -> bool:
        """Whether the path is the whole disk."""
        return path == os.path.abspath(os.sep)

    def size(self, path: str) -> int:
        """A file's size in bytes."""
        if os.path.isdir(path):
            raise IsADirectoryError(path)
        return os.path.getsize(path)

    def open_file(self, path: str) -> IO[bytes]:
        """Open a file for reading."""
        return open(path, "rb")

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        with self.open_file(path) as file:
            return file.read()

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """The bytes from `begin` up to, not including, `end`."""
        with open(path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file, with the folders above it. A reader sees the old content or the new one."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with part_file(path) as part, open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def put_file(self, source: str, path: str) -> None:
        """Copy the local file `source` to `path`. A reader sees the old content or the new one."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with part_file(path) as part:
            shutil.copyfile(source, part)
            with open(part, "rb+") as file:
                # As in `finish_draft`: the content must be on the disk before the name.
                os.fsync(file.fileno())

    def list_names(self, path: str) -> list[str]:
        """Names of the entries of a folder; empty when there is no such folder."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(path)
        return []

    def list_folders(self, path: str) -> list[str]:
        """Names of the folders in a folder; empty when there is no such folder."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
        return []

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all its content. A link is deleted itself, not what it leads to."""
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)

    def version_mark(self, path: str) -> str:
        """A text that changes if the file changes. Empty while the file is younger than STABLE_AFTER_S."""
        info = os.stat(path)
        if time.time() - max(info.st_mtime, info.st_ctime) < STABLE_AFTER_S:
            return ""
        return f"{info.st_dev}:{info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"

    def checksum(self, path: str) -> str:
        """Empty: a disk has no checksum of a file."""
        return ""
