"""Reads files several times before they are called damaged, and checks files after they are written.

A byte may flip on its way from a store, and on its way to it. So a file counts as damaged only after several
readings, and as written only when the store's checksum or a reading agrees.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from retfound_dist.errors import StorageError
from retfound_dist.io import disk_errors, storage
from retfound_dist.io.retry import sleep_before_retry
from retfound_dist.io.storage import CHUNK, FileInfo
from retfound_dist.io.stores.s3_store import PART_BYTES

READINGS = 3
"""Least number of readings before a file is judged. The last two must agree."""
MOST_READINGS = 4 * READINGS
"""A store that gives other bytes each time is not read for ever."""
MOST_PARTS = 10_000
"""S3's limit for one object. A longer file is sent in larger parts than usual."""
_LOST = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def is_missing(error: BaseException) -> bool:
    """Whether an error of `storage` means that the file does not exist, and not that it cannot be read."""
    return isinstance(error.__cause__ or error, _LOST)


def read_info(url: str) -> FileInfo:
    """Size and sha256 of a file as its store holds it now, not as this machine has cached it."""
    digest, total = hashlib.sha256(), 0
    for chunk in _chunks(url):
        digest.update(chunk)
        total += len(chunk)
    return FileInfo(total, digest.hexdigest())


def read(url: str) -> bytes:
    """A small file without a known digest: reads it until two readings in a row agree."""
    seen = list[bytes]()
    while len(seen) < 2 or seen[-1] != seen[-2]:
        if len(seen) == MOST_READINGS:
            raise StorageError(f"cannot read {url}: each of {len(seen)} readings gave something else")
        _forget(url)
        seen.append(storage.read_bytes(url))
    return seen[-1]


def difference_from(url: str, expected: FileInfo) -> str:
    """Why a file differs from this size and sha256, after several readings; empty where it does not.

    Raises StorageError where it cannot be read, which says nothing about its content.
    """
    return _read_until_sure(lambda: read_info(url), expected)


def fetch(url: str, target: str, expected: FileInfo) -> str:
    """Copy a file to a local path, where it appears whole. Returns why it differs; empty where it does not.

    Raises StorageError where it cannot be read, or where this machine's disk is full.
    """
    return _read_until_sure(lambda: _download(url, target), expected)


def upload_verified(path: str, url: str) -> FileInfo:
    """Copy a local file to a URL and check it. Raises StorageError where other content arrived.

    A file that arrived damaged is sent again.
    """
    info = storage.file_info(path)
    for _ in range(MOST_READINGS):
        storage.put_file(path, url)
        # The store's checksum costs one request; reading the file back costs all its bytes.
        if _store_agrees(url, path, info.bytes) or (arrived := read_info(url)) == info:
            return info
    raise StorageError(f"{url} did not arrive as it was sent: {_difference(arrived, info)}")


def move(draft: str, url: str) -> None:
    """Bring a file written at `storage.draft_path` to its URL: renamed on a disk, else sent and checked."""
    if storage.is_local(url):
        storage.move_file(draft, url)
    else:
        upload_verified(draft, url)
        os.unlink(draft)


def write_json(url: str, value: Any) -> None:
    """Write a value as indented JSON, as `storage.write_json` does, and read it back as `write` does.

    Secrets in URLs are masked.
    """
    write(url, storage.json_bytes(value))


def write(url: str, data: bytes) -> None:
    """Write a small file whole and read it back. Raises StorageError where other content arrived.

    A file that arrived damaged is sent again.
    """
    for _ in range(MOST_READINGS):
        storage.write_bytes(url, data)
        _forget(url)
        if storage.read_bytes(url) == data:
            return
    raise StorageError(f"{url} did not arrive as it was sent")


def _read_until_sure(read: Callable[[], FileInfo], expected: FileInfo) -> str:
    seen: list[FileInfo | None] = []
    while len(seen) < READINGS or (seen[-1] != seen[-2] and len(seen) < MOST_READINGS):
        if seen:
            sleep_before_retry(len(seen))
        try:
            seen.append(read())
        except StorageError as error:
            if not is_missing(error):
                raise
            seen.append(None)
        if seen[-1] == expected:
            return ""
    return _difference(seen[-1], expected)


def _difference(actual: FileInfo | None, expected: FileInfo) -> str:
    if actual is None:
        return "it is not there"
    if actual.bytes != expected.bytes:
        return f"it has {actual.bytes:,} bytes, not {expected.bytes:,}"
    return f"its sha256 is {actual.sha256[:12]}..., not {expected.sha256[:12]}..."


def _chunks(url: str) -> Iterator[bytes]:
    _forget(url)
    with storage.open_read(url) as file:
        while True:
            with storage.storage_errors(url, "read"):
                chunk = file.read(CHUNK)
            if not chunk:
                return
            yield chunk


def _forget(url: str) -> None:
    """Makes the next reading of a local file come from its disk, as far as the system allows."""
    if not storage.is_local(url):
        return
    try:
        # Not blocking, because a pipe of this name would be waited for without end.
        number = os.open(storage.local_path(url), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return  # the reading that follows reports it
    try:
        # The page cache would give the same bytes again; only the disk can give other ones.
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass  # not a file on a disk
    finally:
        os.close(number)


def _download(url: str, target: str) -> FileInfo:
    part = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    digest, total = hashlib.sha256(), 0
    try:
        with local_disk_errors(part):
            os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        with local_disk_errors(part), open(part, "wb") as file:
            for chunk in _chunks(url):
                digest.update(chunk)
                total += len(chunk)
                file.write(chunk)
        with local_disk_errors(part):
            os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    return FileInfo(total, digest.hexdigest())


@contextmanager
def local_disk_errors(path: str) -> Iterator[None]:
    """Raises StorageError that names this machine's disk where a local file cannot be written.

    An error of the store is a StorageError already, and passes unchanged.
    """
    try:
        yield
    except OSError as error:
        why = disk_errors.explain(error, path)
        raise StorageError(f"cannot write {path}: {why}; set TMPDIR to a folder on another disk") from error


def _store_agrees(url: str, path: str, size: int) -> bool:
    """Whether the store's checksum is that of the file; False where it has none that we can compute."""
    tag = storage.checksum(url)
    return bool(tag) and tag == _s3_tag(path, size)


def _s3_tag(path: str, size: int) -> str:
    """The ETag of a file that `storage.put_file` has sent: its MD5, or the MD5 of the MD5s of its parts.

    A file that is encrypted by the user's own key has another ETag, and is read back.
    """
    with open(path, "rb") as file:
        # s3fs sends a file in one piece below twice the size of a part. MD5 is S3's choice; machines in FIPS
        # mode refuse it unless it is marked as not for security.
        if size < 2 * PART_BYTES:
            return hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
        # s3fs then takes larger parts, and the ETag depends on their size: the file is read back instead.
        if size > MOST_PARTS * PART_BYTES:
            return ""
        pieces = iter(lambda: file.read(PART_BYTES), b"")
        parts = [hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces]
    joined = b"".join(parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"
