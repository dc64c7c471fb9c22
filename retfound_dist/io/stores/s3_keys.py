"""Keys on S3, exactly as they are written: no character of a key is a pattern or a version mark.

s3fs takes `*`, `?` and `[` for patterns where it deletes, and `?versionId=` for a version. So this module
sends S3's own requests to look for, list and delete keys. `fs` is an `s3fs.S3FileSystem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

AT_ONCE = 1000
"""Keys in one request to delete: S3's own limit."""
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
"""Characters that a request for many keys cannot hold (XML 1.0, section 2.2)."""


def take_keys_as_written(fs: Any) -> None:
    """Make a filesystem take `bucket/key?versionId=x` as a plain key, and not as a version of `key`."""
    # Without this, s3fs 2026.9 takes the key `a?versionId=x` for a version of the key `a`.
    usual = fs.split_path

    def exact(path: str) -> tuple[str, str, None]:
        head, mark, rest = path.partition("?versionId=")
        bucket, key, _ = usual(head)
        return bucket, f"{key}{mark}{rest}", None

    fs.split_path = exact


def size_of(fs: Any, bucket: str, key: str) -> int | None:
    """Bytes of the object with this key; None where there is none."""
    if not key:
        return None
    try:
        return int(fs.call_s3("head_object", Bucket=bucket, Key=key)["ContentLength"])
    except FileNotFoundError:
        return None


def mark_of(fs: Any, bucket: str, key: str) -> str:
    """ETag, size and time of the object with this key; FileNotFoundError where there is none."""
    about = fs.call_s3("head_object", Bucket=bucket, Key=key)
    tag = about.get("ETag")
    return f"{tag} {about['ContentLength']} {about.get('LastModified', '')}" if tag else ""


def is_folder(fs: Any, bucket: str, key: str) -> bool:
    """Whether any key begins with `key/`; FileNotFoundError where there is no such bucket."""
    # One key is proof enough: a folder of a run may hold a hundred thousand.
    page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=_inside(key), MaxKeys=1)
    return bool(page.get("Contents")) or not key


def names_in(fs: Any, bucket: str, key: str) -> tuple[set[str], set[str]]:
    """Names of the folders, and of the files, directly in a folder."""
    inside, folders, files = _inside(key), set(), set()
    for page in pages(fs, Bucket=bucket, Prefix=inside, Delimiter="/"):
        folders |= {entry["Prefix"][len(inside) : -1] for entry in page.get("CommonPrefixes", [])}
        files |= {entry["Key"][len(inside) :] for entry in page.get("Contents", [])}
    return folders - {""}, files - {""}


def keys_of(fs: Any, bucket: str, key: str) -> list[str]:
    """The key itself where it is an object, and every key that begins with `key/`."""
    keys = [key] if size_of(fs, bucket, key) is not None else []
    for page in pages(fs, Bucket=bucket, Prefix=_inside(key)):
        keys += [entry["Key"] for entry in page.get("Contents", [])]
    return keys


def delete_keys(fs: Any, bucket: str, keys: Sequence[str]) -> None:
    """Delete exactly these keys. Raises OSError that names the first key that the store did not delete."""
    # The request for many keys is XML, which cannot spell control characters; the one for a single key is a
    # URL.
    plain = [key for key in keys if not _NOT_IN_XML.search(key)]
    for key in keys:
        if _NOT_IN_XML.search(key):
            fs.call_s3("delete_object", Bucket=bucket, Key=key)
    if len(plain) == 1:
        fs.call_s3("delete_object", Bucket=bucket, Key=plain[0])
        return
    for first in range(0, len(plain), AT_ONCE):
        batch = [{"Key": key} for key in plain[first : first + AT_ONCE]]
        answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        for fault in answer.get("Errors", []):  # the answer as a whole is 200
            # The kinds that `storage.storage_errors` knows: it turns the first into advice on credentials and
            # rights.
            if fault.get("Code") == "AccessDenied":
                raise PermissionError(fault.get("Key", ""))
            raise OSError(f"{fault.get('Key')}: {fault.get('Message') or fault.get('Code')}")


def refusal(fs: Any, bucket: str) -> Exception | None:
    """Why S3 refuses us, from a request whose answer holds a reason; None where that request succeeds."""
    try:
        fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except Exception as error:  # whatever it is, the caller has an error already
        return error
    return None


def _inside(key: str) -> str:
    return f"{key}/" if key else ""


def pages(fs: Any, **request: Any) -> Iterator[dict[str, Any]]:
    """The pages of a listing."""
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        yield page
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
