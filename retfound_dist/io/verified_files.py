"""Reads a file several times before it counts as damaged, and checks files after they are written.

A byte may change on its way from a store or to it. So a file counts as damaged only after several readings,
and as written only when the store's checksum or a reading confirms it.
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

MIN_READINGS = 3
"""Fewest readings before a file counts as damaged. The last two must agree."""
MAX_READINGS = 4 * MIN_READINGS
"""Most readings of a file that gives other bytes each time."""
MAX_PARTS = 10_000
"""S3's limit for one object. A longer file is sent in larger parts than usual."""
_MISSING_FILE_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def is_missing(error: BaseException) -> bool:
    """Whether an error of `storage` means that the file does not exist, and not that it cannot be read."""
    return isinstance(error.__cause__ or error, _MISSING_FILE_ERRORS)


def read_info(url: str) -> FileInfo:
    """Size and sha256 of a file as it is in its store now, not as this machine has cached it."""
    digest, total = hashlib.sha256(), 0
    for chunk in _read_chunks(url):
        digest.update(chunk)
        total += len(chunk)
    return FileInfo(total, digest.hexdigest())


def read(url: str) -> bytes:
    """A small file without a known digest: reads it until two readings in a row agree."""
    readings = list[bytes]()
    while len(readings) < 2 or readings[-1] != readings[-2]:
        if len(readings) == MAX_READINGS:
            raise StorageError(
                f"cannot read {url}: it gave different bytes in {len(readings)} readings; "
                "check the store or the disk"
            )
        _drop_page_cache(url)
        readings.append(storage.read_bytes(url))
    return readings[-1]


def difference_from(url: str, expected: FileInfo) -> str:
    """Why a file differs from this size and sha256, after several readings; empty where it does not.

    Raises StorageError where it cannot be read.
    """
    return _confirmed_difference(lambda: read_info(url), expected)


def fetch(url: str, target: str, expected: FileInfo) -> str:
    """Copy a file to a local path in one step. Returns why it differs; empty where it does not.

    Raises StorageError where it cannot be read, or where this machine's disk is full.
    """
    return _confirmed_difference(lambda: _download_hashed(url, target), expected)


def upload_verified(path: str, url: str) -> FileInfo:
    """Copy a local file to a URL and check it. Raises StorageError where other content arrived.

    A file that arrived damaged is sent again.
    """
    info = storage.file_info(path)
    for _ in range(MAX_READINGS):
        storage.put_file(path, url)
        # The store's checksum costs one request; reading the file back costs all its bytes.
        if _has_same_checksum(url, path, info.bytes) or (stored_info := read_info(url)) == info:
            return info
    raise StorageError(
        f"{url} arrived damaged: {_describe_difference(stored_info, info)}; check the network and the store"
    )


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
    """Write a small file and read it back. Raises StorageError where other content arrived.

    A file that arrived damaged is sent again.
    """
    for _ in range(MAX_READINGS):
        storage.write_bytes(url, data)
        _drop_page_cache(url)
        if storage.read_bytes(url) == data:
            return
    raise StorageError(f"{url} arrived damaged; check the network and the store")


def _confirmed_difference(read: Callable[[], FileInfo], expected: FileInfo) -> str:
    """Why a file differs from `expected`; empty where one reading of it is as expected.

    `read` reads the whole file. One bad reading proves nothing, so the file is read at least `MIN_READINGS`
    times, until two readings in a row agree, and at most `MAX_READINGS` times. Raises the StorageError of
    `read`, except for a missing file, which is a difference.
    """
    # None: the file was missing.
    readings: list[FileInfo | None] = []
    while len(readings) < MIN_READINGS or (readings[-1] != readings[-2] and len(readings) < MAX_READINGS):
        if readings:
            sleep_before_retry(len(readings))
        try:
            readings.append(read())
        except StorageError as error:
            if not is_missing(error):
                raise
            readings.append(None)
        if readings[-1] == expected:
            return ""
    return _describe_difference(readings[-1], expected)


def _describe_difference(actual: FileInfo | None, expected: FileInfo) -> str:
    """How the file differs from the expected one."""
    if actual is None:
        return "it does not exist"
    if actual.bytes != expected.bytes:
        return f"it has {actual.bytes:,} bytes, not {expected.bytes:,}"
    return f"its sha256 is {actual.sha256[:12]}..., not {expected.sha256[:12]}..."


def _read_chunks(url: str) -> Iterator[bytes]:
    """The content of a file, `CHUNK` bytes at a time."""
    _drop_page_cache(url)
    with storage.open_read(url) as file:
        while True:
            with storage.storage_errors(url, "read"):
                chunk = file.read(CHUNK)
            if not chunk:
                return
            yield chunk


def _drop_page_cache(url: str) -> None:
    """Makes the next reading of a local file come from its disk, if the system allows it."""
    if not storage.is_local(url):
        return
    try:
        # Not blocking, because opening a pipe of this name would wait for ever.
        number = os.open(storage.local_path(url), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return  # the reading that follows reports it
    try:
        # The page cache would give the same bytes again.
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass  # not a file on a disk
    finally:
        os.close(number)


def _download_hashed(url: str, target: str) -> FileInfo:
    """Download a file to `target`, and return its size and its sha256."""
    part_path = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    digest, total = hashlib.sha256(), 0
    try:
        with local_disk_errors(part_path):
            os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        with local_disk_errors(part_path), open(part_path, "wb") as file:
            for chunk in _read_chunks(url):
                digest.update(chunk)
                total += len(chunk)
                file.write(chunk)
        with local_disk_errors(part_path):
            os.replace(part_path, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part_path)
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
        reason = disk_errors.explain(error, path)
        raise StorageError(
            f"cannot write {path}: {reason}; set TMPDIR to a folder on another disk"
        ) from error


def _has_same_checksum(url: str, path: str, size: int) -> bool:
    """Whether the store's checksum is that of the file; False where it has none that can be compared."""
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
        if size > MAX_PARTS * PART_BYTES:
            return ""
        pieces = iter(lambda: file.read(PART_BYTES), b"")
        parts = [hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces]
    joined = b"".join(parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"
