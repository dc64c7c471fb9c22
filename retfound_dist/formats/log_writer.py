"""Appends lines to a log. No line is lost, not even when a store's answer is damaged.

On a disk lines are appended in place. A last line that a killed process wrote in part is removed. An object
store accepts only whole files, so the writer keeps the file's content and uploads it again with the new
lines. It keeps only content that it uploaded itself or verified after reading. So a damaged answer is never
written back. An upload that arrives damaged is repeated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any

from pydantic_core import from_json

from retfound_dist.errors import StorageError
from retfound_dist.io import storage, urls

MAX_READINGS = 8
"""Most readings of a file until one is accepted."""
EQUAL_READINGS = 4
"""Equal readings in a row that are needed where the store's tag is not the MD5 of the content."""
# There are two reasons for a tag that looks like an MD5 and differs: this store's tags are not checksums, or
# the answer is damaged. Without such a tag nothing indicates damage, and two equal readings are enough.
_BLOCK = 1 << 16
_MD5 = re.compile(r'^"?([0-9a-f]{32})"? (\d+) ')
"""A store's mark whose tag may be the content's MD5, and its size."""


class LogWriter:
    """Appends lines to one file, and detects lines that another process has appended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._content: bytes | None = None
        """The verified content of the file; None: it has not been read yet."""
        self._mark = ""
        """The store's mark of the file with that content; empty: the file has to be read."""
        self._uploaded = b""
        """The last upload, if it is not known whether it arrived."""
        self._tags_are_md5 = True

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append objects as lines. After a StorageError the same rows may be added again.

        A number that is not finite becomes null, because JSON has no such number.
        """
        lines = b"".join(row_line(row) for row in rows)
        if storage.is_local(self._url):
            _append_in_place(storage.local_path(self._url), lines)
        else:
            self._upload(lines)

    def _upload(self, lines: bytes) -> None:
        """Append complete lines to a log in a store, which can only write whole files.

        The known content is uploaded again, with the lines. If the stored log has changed since the last
        upload, it is read and merged first, so that lines of another writer are kept. StorageError where the
        upload arrives damaged.
        """
        content = self._content
        if content is None or not self._mark or self._current_mark() != self._mark:
            stored = _read_reliably(self._url)
            if self._uploaded.endswith(lines) and stored == self._uploaded:
                # The upload had arrived although its answer was an error. The caller now appends the same
                # rows again.
                self._content, self._mark, self._uploaded = stored, "", b""
                return
            if content is None:
                content = _without_partial_line(stored)
            elif not _differs_by_one_byte(self._uploaded, stored):
                content = _merged(content, stored, lines)
        # Stored before sending: if sending raises, the next call can find out whether the upload arrived.
        self._mark, self._uploaded = "", content + lines
        storage.write_bytes(self._url, self._uploaded)
        mark = self._current_mark()
        if not self._is_stored(mark):
            self._content = content
            raise StorageError(
                f"cannot write {self._url}: it arrived damaged; check the network and the store"
            )
        self._content, self._mark, self._uploaded = self._uploaded, mark, b""

    def _current_mark(self) -> str:
        return storage.version_mark(self._url) if storage.exists(self._url) else ""

    def _is_stored(self, mark: str) -> bool:
        """Whether the store has the last upload. Where its tag does not show that, the file is read back."""
        tag = _MD5.match(mark)
        if not tag:
            return True
        if int(tag[2]) == len(self._uploaded):
            if not self._tags_are_md5:
                # One reading is enough: if it is damaged, the upload is only repeated.
                return storage.read_bytes(self._url) == self._uploaded
            if _md5(self._uploaded) == tag[1]:
                return True
        if _read_reliably(self._url) != self._uploaded:
            return False
        # The content is correct and the tag is not its MD5. With KMS encryption, for example, S3's tags are
        # not.
        self._tags_are_md5 = False
        return True


def append_rows(run_url: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append objects as lines to one of a run's logs, once. Keep a LogWriter to append often."""
    LogWriter(storage.join(run_url, name)).append(rows)


def row_line(row: Mapping[str, Any]) -> bytes:
    """An object as a line of JSON without secrets; a number that is not finite becomes null."""
    # Without a copy first: nearly all rows are finite, and copying each would cost more than a few errors.
    try:
        text = json.dumps(row, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(row))
    return urls.mask(text, min_length=urls.MIN_SECRET_LENGTH_IN_FILES).encode() + b"\n"


def _finite(value: Any) -> Any:
    """A value with None for each number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_reliably(url: str) -> bytes:
    """A file's content; empty where there is no file.

    It is accepted where the store's checksum agrees, otherwise after several equal readings in a row.
    """
    previous_data, equal_readings = None, 0
    for _ in range(MAX_READINGS):
        exists = storage.exists(url)
        mark, data = (storage.version_mark(url), storage.read_bytes(url)) if exists else ("", b"")
        tag = _MD5.match(mark)
        if tag and _md5(data) == tag[1]:
            return data
        equal_readings = equal_readings + 1 if data == previous_data else 1
        if equal_readings >= (EQUAL_READINGS if tag else 2):
            return data
        previous_data = data
    raise StorageError(
        f"cannot read {url}: it gave different bytes in {MAX_READINGS} readings; check the store"
    )


def _md5(data: bytes) -> str:
    # MD5, because S3's ETag of a file that was uploaded in one part is one. It protects against accidents,
    # not attacks.
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _differs_by_one_byte(uploaded: bytes, stored: bytes) -> bool:
    """Whether the stored content is the uploaded one with one changed byte, not a line of another process."""
    return len(uploaded) == len(stored) and sum(a != b for a, b in zip(uploaded, stored, strict=True)) == 1


def _merged(content: bytes, stored: bytes, new_lines: bytes) -> bytes:
    """The verified content, and the lines that another process has appended since.

    Where the stored file has lost or changed verified lines, the verified content wins.
    """
    if stored.startswith(content):
        return _without_partial_line(stored)
    # `new_lines` too: an upload of them may have arrived together with lines of another process.
    known_lines = {*content.split(b"\n"), *new_lines.split(b"\n")}
    added_lines = [line for line in stored.split(b"\n") if line not in known_lines and _is_whole(line)]
    return content + b"".join(line + b"\n" for line in added_lines)


def _without_partial_line(data: bytes) -> bytes:
    """The content without an incomplete last line; a complete one gets its line end."""
    last = data.rpartition(b"\n")[2]
    if not last:
        return data
    return data + b"\n" if _is_whole(last) else data[: len(data) - len(last)]


def _is_whole(line: bytes) -> bool:
    """Whether a line is complete: it is one JSON object."""
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False


def _append_in_place(path: str, lines: bytes) -> None:
    """Append all lines or none to a local file, after its last complete line."""
    with storage.storage_errors(path, "write"):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        # Without a buffer: closing would try again to write what failed, after the repair.
        with open(path, "a+b", buffering=0) as file:
            last = _last_line(file)
            if last and not _is_whole(last):
                file.truncate(file.seek(0, os.SEEK_END) - len(last))
            elif last:
                lines = b"\n" + lines
            end = file.seek(0, os.SEEK_END)
            try:
                while lines:
                    lines = lines[file.write(lines) :]
            except OSError:
                # A full disk accepts a part of the lines. Remove it, or a retry would write the first rows
                # twice.
                file.truncate(end)
                raise


def _last_line(file: IO[bytes]) -> bytes:
    """The bytes after the last line end; empty in a complete log."""
    # From the end, block by block: logs are long, and this runs at every append.
    at, blocks = file.seek(0, os.SEEK_END), list[bytes]()
    while at and not (blocks and b"\n" in blocks[-1]):
        size = min(_BLOCK, at)
        at = file.seek(at - size)
        blocks.append(file.read(size))
    return b"".join(reversed(blocks)).rpartition(b"\n")[2]
