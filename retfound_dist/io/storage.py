"""Reads and writes at URLs: a path, `file://`, `s3://` or `memory://`.

A file written here is whole, or it does not exist. Local files are written beside the target and renamed;
object stores put whole objects. Exactly the named keys are read, listed and deleted: no character of a name
is a pattern. S3 credentials and endpoint come from the usual AWS environment and are never printed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from retfound_dist.errors import StorageError
from retfound_dist.io import disk_errors, slow_store, urls
from retfound_dist.io.stores import local_disk, s3_keys, store_errors
from retfound_dist.io.stores.fsspec_store import FsspecStore, open_filesystem
from retfound_dist.io.stores.local_disk import LocalDisk
from retfound_dist.io.stores.s3_store import S3Store, open_s3
from retfound_dist.io.urls import is_local as is_local
from retfound_dist.io.urls import join as join
from retfound_dist.io.urls import local_path as local_path
from retfound_dist.io.urls import name as name

CHUNK = 1 << 20
"""Bytes that are read at once from a file that may not fit into memory."""
ATTEMPTS = 40
"""Times that a request to S3 is sent before it fails. Callers with retries of their own set it lower.

So many that the time decides (`slow_store.is_time_up`), as docs/s3.md says. botocore waits a random time of
up to 20 s between attempts: with 8 attempts a store that refuses connections was given up after 5 to 70 s.
"""
# A context variable, not a global: the dashboard answers several requests at the same time.
_BELOW: ContextVar[str] = ContextVar("below", default="")
"""The only folder that may be read, where one is set."""


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 (hex) of a file's content."""

    bytes: int
    sha256: str


@lru_cache(maxsize=16)
def _filesystem(scheme: str, pid: int, attempts: int) -> Any:
    """One filesystem object for each process, scheme and number of tries. s3fs must never cross a fork."""
    if scheme == "s3":
        return open_s3(attempts, slow_store.record_answer, slow_store.is_time_up)
    return open_filesystem(scheme)


def open_fs(url: str, attempts: int = 0) -> tuple[Any, str]:
    """The filesystem of a URL, and the file's path in it. `attempts`: 0 for the usual number.

    Do not call `glob`, `rm` or `expand_path` of it: they take characters of a key for a pattern.
    """
    urls.check_spelling(url)
    scheme = urls.scheme_of(url)
    if scheme == "file":
        _check_below(url)
    if scheme == "s3":
        _check_endpoint(os.environ)
    return _filesystem(scheme, os.getpid(), attempts or ATTEMPTS), urls.store_path(url)


@contextmanager
def restrict_to_folder(url: str) -> Iterator[None]:
    """In the block local files are opened and listed only below this folder, wherever links lead."""
    token = _BELOW.set(os.path.realpath(local_path(url)) if is_local(url) else "")
    try:
        yield
    finally:
        _BELOW.reset(token)


def _check_below(url: str) -> None:
    root = _BELOW.get()
    if root and os.path.commonpath([root, os.path.realpath(local_path(url))]) != root:
        raise StorageError(f"{url} leads out of {root}: links out of a served folder are not followed")


def _check_endpoint(env: Mapping[str, str]) -> None:
    """StorageError for an S3 server's address that no client can use."""
    for key in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        address = env.get(key, "")
        if address and not address.startswith(("http://", "https://")):
            raise StorageError(
                f"{key}={address} does not begin with http:// or https://: "
                f"write {key}=http://{address} (https:// where the server has a certificate)"
            )


@contextmanager
def storage_errors(url: str, doing: str, space_needed: int = 0) -> Iterator[None]:
    """Turns any error of a backend into a StorageError of one line. A store that is silent is announced.

    `space_needed`: bytes that the operation needs on the disk.
    """
    try:
        if urls.is_local(url):
            yield
        else:
            with slow_store.waiting(f"{url} (to {doing})"):
                yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        missing_reason = "there is nothing there; check the URL"
        if store_errors.error_code(error) == "NoSuchBucket":
            missing_reason = store_errors.missing_bucket_reason(urls.bucket_of(url))
        raise StorageError(f"cannot {doing} {url}: {missing_reason}") from error
    except PermissionError as error:
        raise StorageError(f"cannot {doing} {url}: {_denial_reason(url, error)}") from error
    except IsADirectoryError as error:
        raise StorageError(f"cannot {doing} {url}: it is a folder, not a file") from error
    except NotADirectoryError as error:
        raise StorageError(f"cannot {doing} {url}: a part of that path is a file, not a folder") from error
    except Exception as error:
        reason = store_errors.other_error_reason(error)
        if reason is None:
            raise
        if isinstance(error, OSError) and disk_errors.is_machine_error(error):
            place = url if urls.is_local(url) else str(error.filename or "")
            reason = disk_errors.explain(error, urls.store_path(place), space_needed) if place else reason
        raise StorageError(f"cannot {doing} {url}: {reason}") from error


def _denial_reason(url: str, error: BaseException) -> str:
    """Why access was denied. An answer without a body (403) gives no reason, so one more request is sent."""
    code = store_errors.error_code(error)
    # A HEAD request has no body, so a refusal of it comes without S3's code.
    if code == "403" and urls.scheme_of(url) == "s3":
        refusal_error = s3_keys.access_error(open_fs(url, attempts=1)[0], urls.bucket_of(url))
        code = store_errors.error_code(refusal_error) if refusal_error else code
    return store_errors.access_denied_reason(code)


def _store_of(url: str) -> tuple[LocalDisk | FsspecStore, str]:
    """The store of a URL, and the file's path in it."""
    fs, path = open_fs(url)
    if is_local(url):
        return LocalDisk(), path
    return (S3Store(fs) if urls.scheme_of(url) == "s3" else FsspecStore(fs)), path


def exists(url: str) -> bool:
    """Whether there is a file, or a folder that is not empty, at the URL."""
    store, path = _store_of(url)
    with storage_errors(url, "look at"):
        return store.exists(path)


def is_folder(url: str) -> bool:
    """Whether the URL is a folder."""
    store, path = _store_of(url)
    with storage_errors(url, "look at"):
        return store.is_folder(path)


def read_bytes(url: str) -> bytes:
    """The whole content of a file."""
    store, path = _store_of(url)
    with storage_errors(url, "read"):
        return store.read(path)


def read_ends(url: str, count: int) -> bytes:
    """The first and the last `count` bytes of a file, one after the other; all of a shorter one."""
    total = size(url)
    if total <= 2 * count:
        return read_bytes(url)
    return read_range(url, 0, count) + read_range(url, total - count, total)


def read_range(url: str, begin: int, end: int) -> bytes:
    """The bytes of a file from `begin` up to, not including, `end`."""
    store, path = _store_of(url)
    with storage_errors(url, "read"):
        return store.read_range(path, begin, end)


def read_json(url: str) -> Any:
    """A JSON file's content."""
    data = read_bytes(url)
    try:
        return json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StorageError(f"cannot read {url}: it is not JSON ({error})") from error


@contextmanager
def open_read(url: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes."""
    store, path = _store_of(url)
    with storage_errors(url, "read"):
        file = store.open_file(path)
    with file:
        yield file


def write_bytes(url: str, data: bytes) -> None:
    """Write a whole file: readers see the old content or the new one, never a part."""
    store, path = _store_of(url)
    with storage_errors(url, "write", len(data)):
        store.write(path, data)


def write_text(url: str, text: str) -> None:
    """Write a whole UTF-8 text file. Secrets are masked; bytes of a name that are not UTF-8 are escaped."""
    write_bytes(url, _masked(text))


def write_json(url: str, value: Any) -> None:
    """Write a value as a whole file of indented JSON, masked as `write_text` does."""
    write_bytes(url, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as our JSON files hold it: indented, with secrets masked."""
    return _masked(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _masked(text: str) -> bytes:
    return urls.mask(text, min_length=urls.MIN_SECRET_LENGTH_IN_FILES).encode(errors="backslashreplace")


def draft_path(url: str, scratch: str) -> str:
    """Where to write a file before `move_file` brings it to `url`: beside it on a disk, else in `scratch`."""
    if not is_local(url):
        return os.path.join(scratch, name(url))
    with storage_errors(url, "write"):
        return local_disk.draft_beside(open_fs(url)[1])


def move_file(draft: str, url: str) -> None:
    """Bring a file written at `draft_path` to its URL, where it appears whole."""
    if not is_local(url):
        put_file(draft, url)
        os.unlink(draft)
        return
    with storage_errors(url, "write"):
        local_disk.finish_draft(draft, open_fs(url)[1])


def put_file(source: str, url: str) -> None:
    """Copy a local file to a URL; the target appears whole (multipart on S3)."""
    store, path = _store_of(url)
    with storage_errors(url, "write", os.path.getsize(source)):
        store.put_file(source, path)


def get_file(url: str, target: str) -> FileInfo:
    """Copy a URL to a local path, which appears whole. Returns size and sha256 of what was read."""
    digest, byte_count = hashlib.sha256(), 0
    with storage_errors(target, "write"), local_disk.part_file(target) as part:
        with open_read(url) as source, storage_errors(url, "read"):
            with storage_errors(target, "write"):
                os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
                # Unbuffered: a full disk is then an error of this write, and not of a later close.
                file = open(part, "wb", buffering=0)  # noqa: SIM115  closed below
            with file:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    byte_count += len(chunk)
                    with storage_errors(target, "write", byte_count):
                        _write_all(file, chunk)
    return FileInfo(byte_count, digest.hexdigest())


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all of the data. An unbuffered write to a nearly full disk takes a part; the next one fails."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


def abort_uploads(url: str) -> int:
    """Abort the multipart uploads that killed processes have left below a folder on S3. Returns how many.

    Their parts appear in no listing, but are paid for. Returns 0 where the store does not list them.
    """
    store, path = _store_of(url)
    # Not every store knows of such uploads, and not every user may ask for them.
    with suppress(StorageError), storage_errors(url, "list"):
        return store.abort_uploads(path) if isinstance(store, S3Store) else 0
    return 0


def list_names(url: str) -> list[str]:
    """Sorted names of the entries of a folder; empty when there is no such folder."""
    store, path = _store_of(url)
    with storage_errors(url, "list"):
        return sorted(store.list_names(path))


def list_folders(url: str) -> list[str]:
    """Sorted names of the folders in a folder; empty when there is no such folder."""
    store, path = _store_of(url)
    with storage_errors(url, "list"):
        return sorted(store.list_folders(path))


def delete(url: str) -> None:
    """Delete a file, or a folder with all its content, and nothing else. Nothing happens where none is."""
    store, path = _store_of(url)
    if store.is_root(path):
        raise StorageError(f"{url} is a whole store, which is never deleted: name a folder in it")
    with storage_errors(url, "delete"):
        store.delete(path)


def size(url: str) -> int:
    """A file's size in bytes."""
    store, path = _store_of(url)
    with storage_errors(url, "look at"):
        return store.size(path)


def version_mark(url: str) -> str:
    """Identifies the content of a file without reading it. The same mark means the same content.

    On S3 it is ETag, size and time; on a disk size, times and inode, once the file is two seconds old. It is
    empty where the store gives too little; then only reading the file can tell.
    """
    store, path = _store_of(url)
    with storage_errors(url, "look at"):
        return store.version_mark(path)


def checksum(url: str) -> str:
    """The store's own checksum of a file, S3's ETag without its quotes; empty where a store has none."""
    store, path = _store_of(url)
    with storage_errors(url, "look at"):
        return store.checksum(path)


def file_info(path: str) -> FileInfo:
    """Size and sha256 of a local file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileInfo(file.tell(), digest.hexdigest())


def bytes_info(data: bytes) -> FileInfo:
    """Size and sha256 of bytes."""
    return FileInfo(len(data), hashlib.sha256(data).hexdigest())
