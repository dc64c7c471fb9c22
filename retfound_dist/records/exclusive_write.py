"""Writes a file only where none exists yet, as far as its store can promise that.

A disk can, and S3 can where it honours `If-None-Match: *` (AWS and Ceph do). A store that ignores the
condition (rclone) is detected by a second request, and then nothing is promised.
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

# exFAT and many FUSE and network mounts know no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV}
# 412: an object stands there. 409: another conditional write is under way at this moment.
_KEY_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
# Servers that do not know the condition refuse the header instead of ignoring it.
_CONDITION_UNKNOWN = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "400"}


class WriteResult(Enum):
    """The result of an exclusive write. The value says it in words."""

    NEW = "it was written, and nothing stood there"
    THERE = "something stands there, which was not touched"
    UNSURE = "it was written, perhaps over something"


def write_new(url: str, data: bytes) -> WriteResult:
    """Write a whole file where none exists. Raises StorageError where the store refuses."""
    scheme = urls.scheme_of(url)
    with storage.storage_errors(url, "write"):
        if scheme == "file":
            return _new_on_disk(storage.open_fs(url)[1], data)
        if scheme == "s3":
            return _new_on_s3(url, data)
    if storage.exists(url):
        return WriteResult.THERE
    storage.write_bytes(url, data)
    return WriteResult.UNSURE


def _new_on_disk(path: str, data: bytes) -> WriteResult:
    """Write a whole file beside the target and link it to the name, which fails where the name is taken."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # link(2) fails where the name is taken; rename(2) would replace what stands there.
        os.link(part, path)
        return WriteResult.NEW
    except FileExistsError:
        return WriteResult.THERE
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.exists(path):
            return WriteResult.THERE
        os.replace(part, path)
        return WriteResult.UNSURE
    finally:
        with suppress(OSError):
            os.unlink(part)


def _new_on_s3(url: str, data: bytes) -> WriteResult:
    fs, bucket, key = storage.open_fs(url)[0], urls.bucket_of(url), urls.key_of(url)
    first = _put_new(fs, bucket, key, data)
    if first is not WriteResult.NEW:
        return first
    # A store that takes the same again has not looked at the condition.
    return WriteResult.NEW if _put_new(fs, bucket, key, data) is WriteResult.THERE else WriteResult.UNSURE


def _put_new(fs: Any, bucket: str, key: str, data: bytes) -> WriteResult:
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except Exception as error:
        code = store_errors.code_of(error)
        if code in _KEY_TAKEN:
            return WriteResult.THERE
        if code not in _CONDITION_UNKNOWN:
            raise
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data)
        return WriteResult.UNSURE
    return WriteResult.NEW
