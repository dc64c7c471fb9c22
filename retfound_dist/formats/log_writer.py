"""Appends lines to a log without ever losing a line, not even when a store's answer is damaged.

On a disk lines are appended in place. A last line that a killed process wrote in part is removed. An object
store accepts only whole files, so the writer keeps the file's content and uploads it again with the new
lines. It keeps only content that it uploaded itself or verified on reading, so a damaged answer is never
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

READINGS = 8
"""Most times that a file is read until a reading is accepted."""
ALIKE = 4
"""Equal readings in a row that are needed where the store's tag disagrees with the content."""
# A tag that looks like an MD5 and disagrees has two explanations: this store's tags are no checksums, or the
# answer is damaged. Elsewhere nothing speaks for damage, and two equal readings are enough.
_BLOCK = 1 << 16
_MD5 = re.compile(r'^"?([0-9a-f]{32})"? (\d+) ')
"""A store's mark whose tag may be the content's MD5, and its size."""


class LogWriter:
    """Appends lines to one file, and notices when another process has done so."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._content: bytes | None = None
        """The verified content of the file; None: it was not read yet."""
        self._mark = ""
        """The store's mark of the file with that content; empty: the file has to be read."""
        self._uploaded = b""
        """The last upload, where it is not known whether it arrived."""
        self._tags_are_md5 = True

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append objects as lines. After a StorageError the same rows may be added again.

        A number that is not finite becomes null, for JSON has no such number.
        """
        lines = b"".join(row_line(row) for row in rows)
        if storage.is_local(self._url):
            _add_in_place(storage.local_path(self._url), lines)
        else:
            self._send(lines)

    def _send(self, lines: bytes) -> None:
        content = self._content
        if content is None or not self._mark or self._mark_now() != self._mark:
            stored = _read_alike(self._url)
            if self._uploaded.endswith(lines) and stored == self._uploaded:
                # The upload had arrived though its answer was an error: the caller now adds the same rows
                # again.
                self._content, self._mark, self._uploaded = stored, "", b""
                return
            if content is None:
                content = _ended(stored)
            elif not _is_damage_of(self._uploaded, stored):
                content = _merged(content, stored, lines)
        # The upload is noted before it is sent: if sending raises, the next call can tell whether it arrived.
        self._mark, self._uploaded = "", content + lines
        storage.write_bytes(self._url, self._uploaded)
        mark = self._mark_now()
        if not self._arrived(mark):
            self._content = content
            raise StorageError(f"cannot write {self._url}: it arrived damaged")
        self._content, self._mark, self._uploaded = self._uploaded, mark, b""

    def _mark_now(self) -> str:
        return storage.version_mark(self._url) if storage.exists(self._url) else ""

    def _arrived(self, mark: str) -> bool:
        """Whether the store holds the last upload. Where its tag cannot tell, the file is read back."""
        tag = _MD5.match(mark)
        if not tag:
            return True
        if int(tag[2]) == len(self._uploaded):
            if not self._tags_are_md5:
                # One reading is enough: if that is damaged, the upload is only repeated.
                return storage.read_bytes(self._url) == self._uploaded
            if _md5(self._uploaded) == tag[1]:
                return True
        if _read_alike(self._url) != self._uploaded:
            return False
        # The content is right and the tag is not its MD5: with KMS encryption, for one, S3's tags are not.
        self._tags_are_md5 = False
        return True


def append_rows(run_url: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append objects as lines to one of a run's logs, once. Keep a LogWriter to append often."""
    LogWriter(storage.join(run_url, name)).add(rows)


def row_line(row: Mapping[str, Any]) -> bytes:
    """An object as a line of JSON without secrets; a number that is not finite becomes null."""
    # Try first: nearly every row is finite, and a copy of each would cost more than the error of a few.
    try:
        text = json.dumps(row, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(row))
    return urls.mask(text, least=urls.LEAST_IN_FILES).encode() + b"\n"


def _finite(value: Any) -> Any:
    """A value with None for each number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_alike(url: str) -> bytes:
    """A file's content; empty where there is no file.

    It is accepted where the store's checksum agrees, otherwise after several equal readings in a row.
    """
    before, alike = None, 0
    for _ in range(READINGS):
        exists = storage.exists(url)
        mark, data = (storage.version_mark(url), storage.read_bytes(url)) if exists else ("", b"")
        tag = _MD5.match(mark)
        if tag and _md5(data) == tag[1]:
            return data
        alike = alike + 1 if data == before else 1
        if alike >= (ALIKE if tag else 2):
            return data
        before = data
    raise StorageError(f"cannot read {url}: it reads differently each time")


def _md5(data: bytes) -> str:
    # MD5 only because S3's ETag of a file uploaded in one part is one. It guards against accidents, not
    # attacks.
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _is_damage_of(uploaded: bytes, stored: bytes) -> bool:
    """Whether the stored content is the uploaded one with one changed byte, not a line of another process."""
    return len(uploaded) == len(stored) and sum(a != b for a, b in zip(uploaded, stored, strict=True)) == 1


def _merged(content: bytes, stored: bytes, new_lines: bytes) -> bytes:
    """The verified content, and the lines that another process has appended since.

    Where the stored file has lost or changed verified lines, the verified content wins.
    """
    if stored.startswith(content):
        return _ended(stored)
    # `new_lines` too: an upload of them may have arrived beside another process's lines, and they come next.
    known = {*content.split(b"\n"), *new_lines.split(b"\n")}
    more = [line for line in stored.split(b"\n") if line not in known and _is_whole(line)]
    return content + b"".join(line + b"\n" for line in more)


def _ended(data: bytes) -> bytes:
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


def _add_in_place(path: str, lines: bytes) -> None:
    """Append all lines or none to a local file, after its last complete line."""
    with storage.storage_errors(path, "write"):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        # Without a buffer: what could not be written would be tried again on closing, behind the repair.
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
                # A full disk takes a part: remove it, or the retry would leave the first rows twice.
                file.truncate(end)
                raise


def _last_line(file: IO[bytes]) -> bytes:
    """What comes after the last line end; empty in a sound log."""
    # From the end, block by block: logs grow long, and this runs at every append.
    at, blocks = file.seek(0, os.SEEK_END), list[bytes]()
    while at and not (blocks and b"\n" in blocks[-1]):
        size = min(_BLOCK, at)
        at = file.seek(at - size)
        blocks.append(file.read(size))
    return b"".join(reversed(blocks)).rpartition(b"\n")[2]
