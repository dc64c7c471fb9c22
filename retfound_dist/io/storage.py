"""Reads and writes at URLs: a path, `file://`, `s3://` or `memory://`.

A file written here is whole, or it does not exist. Local files are written beside the target and renamed;
object stores put whole objects. Exactly the named keys are read, listed and deleted: no character of a name
is a pattern. S3 credentials and endpoint come from the usual AWS environment and are never printed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import fsspec

from retfound_dist.errors import StorageError
from retfound_dist.io import disk_errors, s3_keys, slow_store, store_errors, urls
from retfound_dist.io.urls import is_local as is_local
from retfound_dist.io.urls import join as join
from retfound_dist.io.urls import local_path as local_path
from retfound_dist.io.urls import name as name

CHUNK = 1 << 20
RANGES_AT_ONCE = 32
PART_BYTES = 16 << 20
"""Size of a part. Files of twice this size and more are written to S3 in parts."""
ATTEMPTS = 8
"""Times that a request to S3 is sent before it fails. Callers with retries of their own set it lower."""
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
    options: dict[str, Any] = {}
    if scheme == "s3":
        # Listings are not remembered, because other processes write to the same folders. Time-outs are below
        # botocore's 60 s, so that a request that hangs does not use up the patience of a run. The pool is as
        # large as a batch of ranges: with botocore's 10 connections the others would queue.
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
        if scheme == "s3":
            options["session"] = store_errors.listening_session(
                slow_store.answered, slow_store.out_of_patience
            )
        fs = fsspec.filesystem(scheme, skip_instance_cache=scheme == "s3", **options)
    except (ValueError, ImportError) as error:
        raise StorageError(f"{scheme}:// is not a storage this installation can open: {error}") from error
    if scheme == "s3":
        # s3fs repeats what botocore has already repeated (5 times, s3fs 2026.9); both counts multiply.
        fs.retries = min(fs.retries, attempts)
        s3_keys.take_keys_as_written(fs)
    return fs


def open_fs(url: str, attempts: int = 0) -> tuple[Any, str]:
    """The filesystem of a URL, and the file's path in it. `attempts`: 0 for the usual number.

    Do not call its `glob`, `rm` or `expand_path`: they take characters of a key for a pattern.
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
def storage_errors(url: str, doing: str, wanted: int = 0) -> Iterator[None]:
    """Turns any error of a backend into a StorageError of one line. A store that is silent is announced.

    `wanted`: bytes that the operation needs on the disk.
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
        why = "there is nothing there; check the URL"
        if store_errors.code_of(error) == "NoSuchBucket":
            why = store_errors.no_bucket(urls.bucket_of(url))
        raise StorageError(f"cannot {doing} {url}: {why}") from error
    except PermissionError as error:
        raise StorageError(f"cannot {doing} {url}: {_denial_reason(url, error)}") from error
    except IsADirectoryError as error:
        raise StorageError(f"cannot {doing} {url}: it is a folder, a file is wanted") from error
    except NotADirectoryError as error:
        raise StorageError(f"cannot {doing} {url}: a part of that path is a file, not a folder") from error
    except Exception as error:
        reason = store_errors.reason(error)
        if reason is None:
            raise
        if isinstance(error, OSError) and disk_errors.is_disk_trouble(error):
            place = url if urls.is_local(url) else str(error.filename or "")
            reason = disk_errors.explain(error, urls.store_path(place), wanted) if place else reason
        raise StorageError(f"cannot {doing} {url}: {reason}") from error


def _denial_reason(url: str, error: BaseException) -> str:
    """Why access was denied. An answer without a body (403) gives no reason, so one more request is sent."""
    code = store_errors.code_of(error)
    # A HEAD request has no body, so a refusal of it comes without S3's code.
    if code == "403" and urls.scheme_of(url) == "s3":
        refusal_error = s3_keys.refusal(open_fs(url, attempts=1)[0], urls.bucket_of(url))
        code = store_errors.code_of(refusal_error) if refusal_error else code
    return store_errors.refused(code)


def _on_s3(url: str) -> tuple[Any, str, str] | None:
    """(filesystem, bucket, key) of a URL on S3."""
    fs, _ = open_fs(url)
    return (fs, urls.bucket_of(url), urls.key_of(url)) if urls.scheme_of(url) == "s3" else None


def exists(url: str) -> bool:
    """Whether there is a file, or a folder that is not empty, at the URL."""
    fs, path = open_fs(url)
    with storage_errors(url, "look at"):
        if s3 := _on_s3(url):
            return s3_keys.size_of(*s3) is not None or s3_keys.is_folder(*s3)
        return os.path.exists(path) if is_local(url) else bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether the URL is a folder."""
    fs, path = open_fs(url)
    with storage_errors(url, "look at"):
        if s3 := _on_s3(url):
            return s3_keys.is_folder(*s3)
        return os.path.isdir(path) if is_local(url) else bool(fs.isdir(path))


def read_bytes(url: str) -> bytes:
    """The whole content of a file."""
    with open_read(url) as file, storage_errors(url, "read"):
        return bytes(file.read())


def read_ends(url: str, count: int) -> bytes:
    """The first and the last `count` bytes of a file, one after the other; all of a shorter one."""
    total, (fs, path) = size(url), open_fs(url)
    with storage_errors(url, "read"):
        if total <= 2 * count:
            return read_bytes(url)
        if is_local(url):
            with open(path, "rb") as file:
                head = file.read(count)
                file.seek(total - count)
                return head + file.read()
        return bytes(fs.cat_file(path, start=0, end=count)) + bytes(
            fs.cat_file(path, start=total - count, end=total)
        )


def read_range(url: str, begin: int, end: int) -> bytes:
    """The bytes of a file from `begin` up to, not including, `end`."""
    fs, path = open_fs(url)
    with storage_errors(url, "read"):
        if is_local(url):
            with open(path, "rb") as file:
                file.seek(begin)
                return file.read(end - begin)
        return bytes(fs.cat_file(path, start=begin, end=end))


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
    with storage_errors(url, "read"):
        file = open(path, "rb") if is_local(url) else fs.open(path, "rb")  # noqa: SIM115  closed below
        if getattr(file, "details", {}).get("type") == "directory":  # S3: a key that others begin with
            raise IsADirectoryError(path)
    with file:
        yield file


def write_bytes(url: str, data: bytes) -> None:
    """Write a whole file: readers see the old content or the new one, never a part."""
    fs, path = open_fs(url)
    with storage_errors(url, "write", len(data)):
        if is_local(url):
            _write_local(path, data)
        else:
            fs.pipe_file(path, data)


def write_text(url: str, text: str) -> None:
    """Write a whole UTF-8 text file. Secrets in URLs and error messages are masked."""
    write_bytes(url, _masked(text))


def write_json(url: str, value: Any) -> None:
    """Write a value as a whole file of indented JSON, masked as `write_text` does."""
    write_bytes(url, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as our JSON files hold it: indented, with secrets masked."""
    return _masked(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _masked(text: str) -> bytes:
    return urls.mask(text, least=urls.LEAST_IN_FILES).encode()


def _write_local(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Beside the target, because a rename works within one file system only; a name of its own, because
    # several processes may write the same target.
    part = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            # Without fsync the rename may reach the disk before the data: after a power cut the name would
            # stand on an empty file.
            os.fsync(file.fileno())
        os.replace(part, path)
    # Also on KeyboardInterrupt: nobody would ever remove the part.
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def draft_path(url: str, scratch: str) -> str:
    """Where to write a file before `move_file` brings it to `url`: beside it on a disk, else in `scratch`."""
    if not is_local(url):
        return os.path.join(scratch, name(url))
    path = open_fs(url)[1]
    with storage_errors(url, "write"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return f"{path}.{uuid.uuid4().hex[:8]}.tmp"


def move_file(draft: str, url: str) -> None:
    """Bring a file written at `draft_path` to its URL, where it appears whole."""
    if not is_local(url):
        put_file(draft, url)
        os.unlink(draft)
        return
    with storage_errors(url, "write"):
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, open_fs(url)[1])


def put_file(source: str, url: str) -> None:
    """Copy a local file to a URL; the target appears whole (multipart on S3)."""
    fs, path = open_fs(url)
    with storage_errors(url, "write", os.path.getsize(source)):
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
            # The size of a part is fixed: `verified_files` computes S3's ETag from it.
            fs.put_file(source, path, **({"chunksize": PART_BYTES} if urls.scheme_of(url) == "s3" else {}))


def get_file(url: str, target: str) -> FileInfo:
    """Copy a URL to a local path, which appears whole. Returns size and sha256 of what was read."""
    part = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    digest, size = hashlib.sha256(), 0
    try:
        with open_read(url) as source, storage_errors(url, "read"):
            with storage_errors(target, "write"):
                os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
                # Unbuffered: a full disk is then an error of this write, and not of a later close.
                file = open(part, "wb", buffering=0)  # noqa: SIM115  closed below
            with file:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    with storage_errors(target, "write", size):
                        _write_all(file, chunk)
        with storage_errors(target, "write"):
            os.replace(part, target)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    return FileInfo(size, digest.hexdigest())


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all of the data. An unbuffered write to a nearly full disk takes a part; the next one fails."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


def abort_uploads(url: str) -> int:
    """Abort the multipart uploads that killed processes have left below a folder on S3. Returns how many.

    Their parts appear in no listing, but are paid for. Returns 0 where the store does not list them.
    """
    if urls.scheme_of(url) != "s3":
        return 0
    fs, bucket, folder = open_fs(url)[0], urls.bucket_of(url), urls.key_of(url)
    prefix = f"{folder}/" if folder else ""
    try:
        # s3fs's `clear_multipart_uploads` takes a whole bucket, and so what others write in it.
        with storage_errors(url, "list"):
            uploads = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", [])
            for upload in uploads:
                key, number = upload["Key"], upload["UploadId"]
                fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=number)
    except StorageError:
        return 0  # not every store knows of this, not every user may ask
    return len(uploads)


def list_names(url: str) -> list[str]:
    """Sorted names of the entries of a folder; empty when there is no such folder."""
    fs, path = open_fs(url)
    with storage_errors(url, "list"):
        if s3 := _on_s3(url):
            return sorted(set.union(*s3_keys.names_in(*s3)))
        try:
            if is_local(url):
                return sorted(os.listdir(path))
            return sorted({name(entry) for entry in fs.ls(path, detail=False) if entry != path})
        except (FileNotFoundError, NotADirectoryError):
            return []


def list_folders(url: str) -> list[str]:
    """Sorted names of the folders in a folder; empty when there is no such folder."""
    fs, path = open_fs(url)
    with storage_errors(url, "list"):
        if s3 := _on_s3(url):
            return sorted(s3_keys.names_in(*s3)[0])
        try:
            if is_local(url):
                with os.scandir(path) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            entries = fs.ls(path, detail=True)
            return sorted({name(entry["name"]) for entry in entries if entry["type"] == "directory"})
        except (FileNotFoundError, NotADirectoryError):
            return []


def delete(url: str) -> None:
    """Delete a file, or a folder with all its content, and nothing else. Nothing happens where none is."""
    fs, path = open_fs(url)
    with storage_errors(url, "delete"):
        if is_local(url):
            _delete_local(path)
        elif s3 := _on_s3(url):
            _refuse_whole_store(url, bool(s3[2]))
            s3_keys.delete_keys(s3[0], s3[1], s3_keys.keys_of(*s3))
        else:
            # Neither `fs.rm` nor `fs.glob`: both take `*?[` in a name for a pattern.
            _refuse_whole_store(url, path.strip("/") != "")
            details_by_path = fs.find(path, withdirs=True, detail=True)
            for entry_path in sorted(details_by_path, reverse=True):  # what lies in a folder comes before it
                with suppress(FileNotFoundError):
                    (fs.rmdir if details_by_path[entry_path]["type"] == "directory" else fs.rm_file)(
                        entry_path
                    )


def _refuse_whole_store(url: str, is_part: bool) -> None:
    """Raises StorageError where a whole bucket or disk would be deleted."""
    if not is_part:
        raise StorageError(f"{url} is a whole store: nothing here deletes one; name a folder in it")


def _delete_local(path: str) -> None:
    _refuse_whole_store(path, path != os.path.abspath(os.sep))
    # A link is removed itself, never the folder that it leads to.
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def size(url: str) -> int:
    """A file's size in bytes."""
    fs, path = open_fs(url)
    with storage_errors(url, "look at"):
        if s3 := _on_s3(url):
            byte_count = s3_keys.size_of(*s3)
            if byte_count is None:
                raise IsADirectoryError(path) if s3_keys.is_folder(*s3) else FileNotFoundError(path)
            return byte_count
        if os.path.isdir(path) if is_local(url) else fs.isdir(path):
            raise IsADirectoryError(path)
        return os.path.getsize(path) if is_local(url) else int(fs.size(path))


SETTLED_S = 2.0
"""A younger local file may be written again without its times changing: file systems' clocks are coarse."""


def version_mark(url: str) -> str:
    """Identifies the content of a file without reading it. The same mark means the same content.

    On S3 it is ETag, size and time; on a disk size, times and inode, once the file is SETTLED_S old. It is
    empty where the store gives too little; then only reading the file can tell.
    """
    _, path = open_fs(url)
    with storage_errors(url, "look at"):
        if s3 := _on_s3(url):
            return s3_keys.mark_of(*s3)
        if not is_local(url):
            return ""
        info = os.stat(path)
        if time.time() - max(info.st_mtime, info.st_ctime) < SETTLED_S:
            return ""
        return f"{info.st_dev}:{info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"


def checksum(url: str) -> str:
    """The store's own checksum of a file, S3's ETag without its quotes; empty where a store has none."""
    s3 = _on_s3(url)
    if not s3:
        return ""
    with storage_errors(url, "look at"):
        return s3_keys.mark_of(*s3).partition(" ")[0].strip('"')


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
