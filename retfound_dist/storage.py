"""Read and write at URLs: a path, `file://`, `s3://` or `memory://`.

URLs stay strings (`pathlib` would turn `s3://bucket` into `s3:/bucket`). A file written here is
whole or not there: local files are written beside the target and renamed, object stores put
whole objects. S3 credentials and endpoint come from the usual AWS environment and are never
printed.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import fsspec

from retfound_dist.errors import StorageError

CHUNK = 1 << 20
RANGES_AT_ONCE = 32
PART_BYTES = 16 << 20
"""Of a file on S3 that is written in parts: of twice this size and more."""
ATTEMPTS = 8
"""Times that a request to S3 is sent before it has failed; who insists by other means sets it lower."""
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 (hex) of a file's content."""

    bytes: int
    sha256: str


def is_local(url: str) -> bool:
    """Whether the URL is a plain path or `file://`."""
    return url.startswith("file://") or not _SCHEME.match(url)


def local_path(url: str) -> str:
    """The path behind a local URL."""
    if not is_local(url):
        raise StorageError(f"{url} is not on this machine's disk: give a local path here")
    return os.path.expanduser(url.removeprefix("file://"))


def join(url: str, *parts: str) -> str:
    """Append path components to a URL."""
    return posixpath.join(url.rstrip("/") if len(url) > 1 else url, *parts)


def name(url: str) -> str:
    """The last component of a URL."""
    return url.rstrip("/").rsplit("/", 1)[-1]


@lru_cache(maxsize=16)
def _filesystem(scheme: str, pid: int, attempts: int) -> Any:
    """One filesystem object a process, scheme and number of tries: s3fs must never cross a fork."""
    options: dict[str, Any] = {}
    if scheme == "s3":
        options = {
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": 10,
                "read_timeout": 20,
                "max_pool_connections": RANGES_AT_ONCE,
                "retries": {"max_attempts": attempts, "mode": "standard"},
            },
        }
    try:
        fs = fsspec.filesystem(scheme, skip_instance_cache=scheme == "s3", **options)
        if scheme == "s3":
            fs.retries = min(fs.retries, attempts)
        return fs
    except (ValueError, ImportError) as error:
        raise StorageError(f"{scheme}:// is not a storage this installation can open: {error}") from error


def _scheme(url: str) -> str:
    return "file" if is_local(url) else url.split("://", 1)[0].lower()


def open_fs(url: str, attempts: int = 0) -> tuple[Any, str]:
    """The filesystem of a URL, and what it calls the file there; `attempts`: 0 for as many as usual."""
    scheme = _scheme(url)
    path = os.path.abspath(local_path(url)) if scheme == "file" else url
    return _filesystem(scheme, os.getpid(), attempts or ATTEMPTS), path


@contextmanager
def explained(url: str, doing: str) -> Iterator[None]:
    """Turn whatever a backend raises into one clear line."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"cannot {doing} {url}: there is nothing there; check the URL") from error
    except PermissionError as error:
        raise StorageError(f"cannot {doing} {url}: access denied; check credentials and rights") from error
    except IsADirectoryError as error:
        raise StorageError(f"cannot {doing} {url}: it is a folder, a file is wanted") from error
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in {
            "botocore",
            "aiobotocore",
            "aiohttp",
            "s3fs",
        }:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(f"cannot {doing} {url}: {reason}") from error
        raise


def exists(url: str) -> bool:
    """Whether a file (or a folder with something in it) stands at the URL."""
    fs, path = open_fs(url)
    with explained(url, "look at"):
        return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether the URL is a folder."""
    fs, path = open_fs(url)
    with explained(url, "look at"):
        return bool(fs.isdir(path))


def read_bytes(url: str) -> bytes:
    """The whole content of a file."""
    fs, path = open_fs(url)
    with explained(url, "read"):
        with fs.open(path, "rb") as file:
            return bytes(file.read())


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
    fs, path = open_fs(url)
    with explained(url, "read"):
        file = fs.open(path, "rb")
    with file:
        yield file


def write_bytes(url: str, data: bytes) -> None:
    """Write a file whole: readers see the old content or the new, never a part."""
    fs, path = open_fs(url)
    with explained(url, "write"):
        if is_local(url):
            _write_local(path, data)
        else:
            fs.pipe_file(path, data)


def write_text(url: str, text: str) -> None:
    """Write a UTF-8 text file whole."""
    write_bytes(url, text.encode())


def write_json(url: str, value: Any) -> None:
    """Write a value as indented JSON, whole."""
    write_text(url, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _write_local(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def draft_path(url: str, scratch: str) -> str:
    """Where to write a file that `move_file` shall bring to `url`: beside it on a disk, else in scratch."""
    if not is_local(url):
        return os.path.join(scratch, name(url))
    path = open_fs(url)[1]
    with explained(url, "write"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return f"{path}.{uuid.uuid4().hex[:8]}.tmp"


def move_file(draft: str, url: str) -> None:
    """Bring a file written at `draft_path` to its URL, where it appears whole."""
    if not is_local(url):
        put_file(draft, url)
        os.unlink(draft)
        return
    with explained(url, "write"):
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, open_fs(url)[1])


def put_file(source: str, url: str) -> None:
    """Copy a local file to a URL; the target appears whole (multipart on S3)."""
    fs, path = open_fs(url)
    with explained(url, "write"):
        if is_local(url):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            part = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                shutil.copyfile(source, part)
                with open(part, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(part, path)
            except BaseException:
                if os.path.exists(part):
                    os.unlink(part)
                raise
        else:
            fs.put_file(source, path, **({"chunksize": PART_BYTES} if _scheme(url) == "s3" else {}))


def get_file(url: str, target: str) -> FileInfo:
    """Copy a URL to a local path, which appears whole; gives what was read."""
    part = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    digest, size = hashlib.sha256(), 0
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    try:
        with open_read(url) as source, open(part, "wb") as file, explained(url, "read"):
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        os.replace(part, target)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    return FileInfo(size, digest.hexdigest())


def abort_uploads(url: str) -> int:
    """Drop what killed processes have left of files in parts below a folder on S3; gives how many.

    Such parts are not seen in any listing, and paid for. 0 where the store does not tell.
    """
    if _scheme(url) != "s3":
        return 0
    fs, path = open_fs(url)
    bucket, folder, _ = fs.split_path(path)
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    try:
        with explained(url, "list"):
            found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", [])
            for upload in found:
                key, number = upload["Key"], upload["UploadId"]
                fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=number)
    except StorageError:
        return 0  # not every store knows of this, not every user may ask
    return len(found)


def list_names(url: str) -> list[str]:
    """Sorted names of the entries of a folder; empty when there is no such folder."""
    fs, path = open_fs(url)
    with explained(url, "list"):
        try:
            entries = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            return []
    base = name(path)
    return sorted({name(entry) for entry in entries} - {"", base if not is_local(url) else ""})


def delete(url: str) -> None:
    """Remove a file or a folder with all in it; nothing happens where there is none."""
    fs, path = open_fs(url)
    with explained(url, "delete"):
        try:
            fs.rm(path, recursive=True)
        except FileNotFoundError:
            return
        if not is_local(url):
            for left in fs.find(path):  # s3fs drops what the store says of single files: each raises here
                fs.rm_file(left)


def size(url: str) -> int:
    """A file's size in bytes."""
    fs, path = open_fs(url)
    with explained(url, "look at"):
        return int(fs.size(path))


def file_info(path: str) -> FileInfo:
    """Size and sha256 of a local file."""
    digest, total = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            total += len(chunk)
    return FileInfo(total, digest.hexdigest())


def bytes_info(data: bytes) -> FileInfo:
    """Size and sha256 of bytes."""
    return FileInfo(len(data), hashlib.sha256(data).hexdigest())
