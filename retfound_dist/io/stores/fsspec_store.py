"""Reads, writes and lists files of any store that fsspec opens.

Its `glob`, `rm` and `expand_path` are never called: they take characters of a key for a pattern.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any

import fsspec

from retfound_dist.errors import StorageError


def open_filesystem(scheme: str, **options: Any) -> Any:
    """fsspec's filesystem of a scheme. StorageError where this installation has none."""
    try:
        return fsspec.filesystem(scheme, **options)
    except (ValueError, ImportError) as error:
        raise StorageError(
            f"this installation cannot open {scheme}:// URLs ({error}): use a local path or an s3:// URL"
        ) from error


class FsspecStore:
    """A store behind an fsspec filesystem, with the same methods as `LocalDisk`."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def exists(self, path: str) -> bool:
        """Whether there is a file, or a folder that is not empty."""
        return bool(self.fs.exists(path))

    def is_folder(self, path: str) -> bool:
        """Whether the path is a folder."""
        return bool(self.fs.isdir(path))

    def is_root(self, path: str) -> bool:
        """Whether the path is the whole store."""
        return path.strip("/") == ""

    def size(self, path: str) -> int:
        """A file's size in bytes."""
        if self.fs.isdir(path):
            raise IsADirectoryError(path)
        return int(self.fs.size(path))

    def open_file(self, path: str) -> IO[bytes]:
        """Open a file for reading."""
        file: IO[bytes] = self.fs.open(path, "rb")
        if getattr(file, "details", {}).get("type") == "directory":  # S3: a key that others begin with
            raise IsADirectoryError(path)
        return file

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        with self.open_file(path) as file:
            return bytes(file.read())

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """The bytes from `begin` up to, not including, `end`."""
        return bytes(self.fs.cat_file(path, start=begin, end=end))

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file."""
        self.fs.pipe_file(path, data)

    def put_file(self, source: str, path: str) -> None:
        """Upload a local file."""
        self.fs.put_file(source, path)

    def list_names(self, path: str) -> list[str]:
        """Names of the entries of a folder; empty when there is no such folder."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return list({_last_part(entry) for entry in self.fs.ls(path, detail=False) if entry != path})
        return []

    def list_folders(self, path: str) -> list[str]:
        """Names of the folders in a folder; empty when there is no such folder."""
        with suppress(FileNotFoundError, NotADirectoryError):
            entries = self.fs.ls(path, detail=True)
            return list({_last_part(entry["name"]) for entry in entries if entry["type"] == "directory"})
        return []

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all its content."""
        details = self.fs.find(path, withdirs=True, detail=True)
        # In reverse order, so that the content of a folder goes before the folder.
        for entry in sorted(details, reverse=True):
            delete_entry = self.fs.rmdir if details[entry]["type"] == "directory" else self.fs.rm_file
            with suppress(FileNotFoundError):
                delete_entry(entry)

    def version_mark(self, path: str) -> str:
        """Empty: nothing that fsspec gives for every store changes whenever a file's content does."""
        return ""

    def checksum(self, path: str) -> str:
        """Empty: fsspec has no checksum that every store gives."""
        return ""


def _last_part(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
