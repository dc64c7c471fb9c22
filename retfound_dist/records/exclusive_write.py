"""Writes a file only where none exists, as far as the store can guarantee that.

A disk guarantees it, and so does S3 where it supports `If-None-Match: *` (AWS and Ceph do). A store that
ignores the condition (rclone) is detected by a second request. Then the result is UNCERTAIN.
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from enum import Enum
from typing import Any

from retfound_dist.io import storage, urls
from retfound_dist.io.stores import store_errors

# exFAT and many FUSE and network mounts have no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV}
# 412: an object exists. 409: another conditional write is in progress.
_KEY_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
# Some servers that do not know the condition refuse the header instead of ignoring it.
_CONDITION_UNKNOWN = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "400"}


class WriteResult(Enum):
    """The result of an exclusive write, with its meaning as the value."""

    NEW = "the file was written, and none existed before"
    EXISTS = "a file exists already and was not changed"
    UNCERTAIN = "the file was written, perhaps over another one"


def write_new(url: str, data: bytes) -> WriteResult:
    """Write a whole file where none exists. Raises StorageError where the store refuses."""
    scheme = urls.scheme_of(url)
    with storage.storage_errors(url, "write"):
        if scheme == "file":
            return _new_on_disk(storage.open_fs(url)[1], data)
        if scheme == "s3":
            return _new_on_s3(url, data)
    if storage.exists(url):
        return WriteResult.EXISTS
    storage.write_bytes(url, data)
    return WriteResult.UNCERTAIN


def _new_on_disk(path: str, data: bytes) -> WriteResult:
    """Write a whole file beside the target and link it to the name, which fails where the name exists."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part_path = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(part_path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # link(2) fails where the name exists. rename(2) would replace the file.
        os.link(part_path, path)
        return WriteResult.NEW
    except FileExistsError:
        return WriteResult.EXISTS
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.exists(path):
            return WriteResult.EXISTS
        os.replace(part_path, path)
        return WriteResult.UNCERTAIN
    finally:
        with suppress(OSError):
            os.unlink(part_path)


def _new_on_s3(url: str, data: bytes) -> WriteResult:
    """Write an object only if there is none yet, and check that the store respects that condition."""
    fs, bucket, key = storage.open_fs(url)[0], urls.bucket_of(url), urls.key_of(url)
    first = _put_new(fs, bucket, key, data)
    if first is not WriteResult.NEW:
        return first
    # A store that accepts the same write again ignores the condition.
    return WriteResult.NEW if _put_new(fs, bucket, key, data) is WriteResult.EXISTS else WriteResult.UNCERTAIN


def _put_new(fs: Any, bucket: str, key: str, data: bytes) -> WriteResult:
    """Write an object only if there is none yet; UNSURE where the store does not know the condition."""
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except Exception as error:
        code = store_errors.error_code(error)
        if code in _KEY_TAKEN:
            return WriteResult.EXISTS
        if code not in _CONDITION_UNKNOWN:
            raise
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data)
        return WriteResult.UNCERTAIN
    return WriteResult.NEW
