"""Handles S3 keys literally: no character of a key is a pattern or marks a version.

s3fs reads `*`, `?` and `[` as patterns when it deletes, and `?versionId=` as a version. So this module sends
S3's own requests to find, list and delete keys. `fs` is an `s3fs.S3FileSystem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

MAX_DELETED_KEYS = 1000
"""Most keys in one delete request: S3's limit."""
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
"""Characters that a request for many keys cannot hold (XML 1.0, section 2.2)."""


def use_literal_keys(fs: Any) -> None:
    """Make a filesystem treat `bucket/key?versionId=x` as a plain key, not as a version of `key`."""
    # Without this, s3fs 2026.9 reads the key `a?versionId=x` as a version of the key `a`.
    split_path = fs.split_path

    def split_literally(path: str) -> tuple[str, str, None]:
        head, mark, rest = path.partition("?versionId=")
        bucket, key, _ = split_path(head)
        return bucket, f"{key}{mark}{rest}", None

    fs.split_path = split_literally


def size_of(fs: Any, bucket: str, key: str) -> int | None:
    """Bytes of the object with this key; None where there is none."""
    if not key:
        return None
    try:
        return int(fs.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"])
    except FileNotFoundError:
        return None


def version_mark(fs: Any, bucket: str, key: str) -> str:
    """ETag, size and time of the object with this key; FileNotFoundError where there is none."""
    head = fs.call_s3("head_object", Bucket=bucket, Key=key)
    tag = head.get("ETag")
    return f"{tag} {head['ContentLength']} {head.get('LastModified', '')}" if tag else ""


def is_folder(fs: Any, bucket: str, key: str) -> bool:
    """Whether any key begins with `key/`; FileNotFoundError where there is no such bucket."""
    # One key is enough: a run's folder may have a hundred thousand.
    page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=_folder_prefix(key), MaxKeys=1)
    return bool(page.get("Contents")) or not key


def names_in(fs: Any, bucket: str, key: str) -> tuple[set[str], set[str]]:
    """Names of the folders, and of the files, directly in a folder."""
    prefix, folders, files = _folder_prefix(key), set(), set()
    for page in pages(fs, Bucket=bucket, Prefix=prefix, Delimiter="/"):
        folders |= {entry["Prefix"][len(prefix) : -1] for entry in page.get("CommonPrefixes", [])}
        files |= {entry["Key"][len(prefix) :] for entry in page.get("Contents", [])}
    return folders - {""}, files - {""}


def keys_of(fs: Any, bucket: str, key: str) -> list[str]:
    """The key itself where it is an object, and every key that begins with `key/`."""
    keys = [key] if size_of(fs, bucket, key) is not None else []
    for page in pages(fs, Bucket=bucket, Prefix=_folder_prefix(key)):
        keys += [entry["Key"] for entry in page.get("Contents", [])]
    return keys


def delete_keys(fs: Any, bucket: str, keys: Sequence[str]) -> None:
    """Delete exactly these keys. Raises OSError that names the first key that the store did not delete."""
    # The request for many keys is XML, which cannot contain control characters. The request for one key is a
    # URL, which can.
    xml_keys = [key for key in keys if not _NOT_IN_XML.search(key)]
    for key in keys:
        if _NOT_IN_XML.search(key):
            fs.call_s3("delete_object", Bucket=bucket, Key=key)
    if len(xml_keys) == 1:
        fs.call_s3("delete_object", Bucket=bucket, Key=xml_keys[0])
        return
    for first in range(0, len(xml_keys), MAX_DELETED_KEYS):
        batch = [{"Key": key} for key in xml_keys[first : first + MAX_DELETED_KEYS]]
        answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        for failure in answer.get("Errors", []):  # the status of the whole answer is 200
            # `storage` turns a PermissionError into advice on credentials and rights.
            if failure.get("Code") == "AccessDenied":
                raise PermissionError(failure.get("Key", ""))
            raise OSError(f"{failure.get('Key')}: {failure.get('Message') or failure.get('Code')}")


def access_error(fs: Any, bucket: str) -> Exception | None:
    """Why S3 denies access. Sends a request whose answer has a reason; None where it succeeds."""
    try:
        fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except Exception as error:  # of any class: the caller already has an error to report
        return error
    return None


def _folder_prefix(key: str) -> str:
    return f"{key}/" if key else ""


def pages(fs: Any, **request: Any) -> Iterator[dict[str, Any]]:
    """The answers to a listing, up to 1000 keys each; `request`: the arguments of `list_objects_v2`."""
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        yield page
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
