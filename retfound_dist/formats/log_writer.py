"""Adding lines to a log so that what stands in it already is never lost, not even to a damaged answer.

On a disk lines are added in place; a line that a killed process wrote in part goes. An object store takes
whole files alone, so the writer holds the file's content and sends it again with the new lines. What it
holds it has sent itself, or checked as it was read: a damaged answer is never written back. What arrives
damaged at the store is sent again.
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
"""Times that a file is read until it is believed."""
ALIKE = 4
"""Readings in a row that have to agree where the store's tag is no checksum, or the answer is damaged."""
_BLOCK = 1 << 16
_MD5 = re.compile(r'^"?([0-9a-f]{32})"? (\d+) ')
"""A store's mark whose tag may be the content's MD5, and its size."""


class LogWriter:
    """Adds lines to one file; it notices when somebody else has, too."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._held: bytes | None = None
        """What is known to belong in the file."""
        self._mark = ""
        """What the store said of the file when it held just that; empty: it has to be read."""
        self._tried = b""
        """What was sent last, where it is not known whether it arrived."""
        self._tags_are_md5 = True

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add objects as lines; StorageError where that fails: the same rows may be added again then.

        A number that is not finite becomes null: JSON has none.
        """
        lines = b"".join(row_line(row) for row in rows)
        if storage.is_local(self._url):
            _add_in_place(storage.local_path(self._url), lines)
        else:
            self._send(lines)

    def _send(self, lines: bytes) -> None:
        held = self._held
        if held is None or not self._mark or self._mark_now() != self._mark:
            found = _read_alike(self._url)
            if self._tried.endswith(lines) and found == self._tried:
                self._held, self._mark, self._tried = found, "", b""  # it had arrived
                return
            if held is None:
                held = _ended(found)
            elif not _is_damage_of(self._tried, found):
                held = _merged(held, found, lines)
        self._mark, self._tried = "", held + lines
        storage.write_bytes(self._url, self._tried)
        mark = self._mark_now()
        if not self._arrived(mark):
            self._held = held
            raise StorageError(f"cannot write {self._url}: it arrived damaged")
        self._held, self._mark, self._tried = self._tried, mark, b""

    def _mark_now(self) -> str:
        return storage.version_mark(self._url) if storage.exists(self._url) else ""

    def _arrived(self, mark: str) -> bool:
        """Whether the store holds what was sent last. Where its tag does not say so it is read back."""
        told = _MD5.match(mark)
        if not told:
            return True
        if int(told[2]) == len(self._tried):
            if not self._tags_are_md5:
                return storage.read_bytes(self._url) == self._tried  # read damaged, it is sent again
            if _md5(self._tried) == told[1]:
                return True
        if _read_alike(self._url) != self._tried:
            return False
        self._tags_are_md5 = False
        return True


def append_rows(run_url: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add objects as lines to one of a run's logs, once; who adds often keeps a LogWriter."""
    LogWriter(storage.join(run_url, name)).add(rows)


def row_line(row: Mapping[str, Any]) -> bytes:
    """An object as a line of JSON without secrets; a number that is not finite becomes null."""
    try:
        text = json.dumps(row, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(row))
    return urls.mask(text, least=urls.LEAST_IN_FILES).encode() + b"\n"


def _finite(value: Any) -> Any:
    """A value with null for each number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_alike(url: str) -> bytes:
    """A file's content; nothing where there is none.

    It is believed where the store's checksum agrees, elsewhere once several readings in a row are alike.
    """
    before, alike = None, 0
    for _ in range(READINGS):
        there = storage.exists(url)
        mark, data = (storage.version_mark(url), storage.read_bytes(url)) if there else ("", b"")
        told = _MD5.match(mark)
        if told and _md5(data) == told[1]:
            return data
        alike = alike + 1 if data == before else 1
        if alike >= (ALIKE if told else 2):
            return data
        before = data
    raise StorageError(f"cannot read {url}: it reads differently each time")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _is_damage_of(sent: bytes, found: bytes) -> bool:
    """Whether it is what was sent with a byte that flipped on the way, and no line of somebody else's."""
    return len(sent) == len(found) and sum(a != b for a, b in zip(sent, found, strict=True)) == 1


def _merged(held: bytes, found: bytes, coming: bytes) -> bytes:
    """What is held, and the lines that somebody else has added since.

    Where the file has lost or changed what is held, what is held counts.
    """
    if found.startswith(held):
        return _ended(found)
    known = {*held.split(b"\n"), *coming.split(b"\n")}
    more = [line for line in found.split(b"\n") if line not in known and _is_whole(line)]
    return held + b"".join(line + b"\n" for line in more)


def _ended(data: bytes) -> bytes:
    """The content without a last line that was written in part."""
    last = data.rpartition(b"\n")[2]
    if not last:
        return data
    return data + b"\n" if _is_whole(last) else data[: len(data) - len(last)]


def _is_whole(line: bytes) -> bool:
    """Whether a line was written to its end."""
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False


def _add_in_place(path: str, lines: bytes) -> None:
    """All lines or none at the end of a local file, behind its last whole line."""
    with storage.explained(path, "write"):
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
                file.truncate(end)
                raise


def _last_line(file: IO[bytes]) -> bytes:
    """What stands behind the last line's end."""
    at, blocks = file.seek(0, os.SEEK_END), list[bytes]()
    while at and not (blocks and b"\n" in blocks[-1]):
        size = min(_BLOCK, at)
        at = file.seek(at - size)
        blocks.append(file.read(size))
    return b"".join(reversed(blocks)).rpartition(b"\n")[2]
