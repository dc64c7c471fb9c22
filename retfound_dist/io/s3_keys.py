"""Keys on S3, exactly as they are written: no character of a key is a pattern or a version mark.

s3fs takes `*`, `?` and `[` for patterns where it deletes, and `?versionId=` for a version. What looks for,
lists and deletes keys is therefore asked of S3 itself. `fs` is an `s3fs.S3FileSystem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

AT_ONCE = 1000
"""Keys of one request to delete: S3's own limit."""
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
"""What a request of many keys cannot hold: XML 1.0, section 2.2."""


def take_keys_as_written(fs: Any) -> None:
    """Let a filesystem split `bucket/key?versionId=x` as the key it is."""
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
    page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=_inside(key), MaxKeys=1)
    return bool(page.get("Contents")) or not key


def names_in(fs: Any, bucket: str, key: str) -> tuple[set[str], set[str]]:
    """Names of the folders, and of the files, directly in a folder."""
    inside, folders, files = _inside(key), set(), set()
    for page in pages(fs, Bucket=bucket, Prefix=inside, Delimiter="/"):
        folders |= {each["Prefix"][len(inside) : -1] for each in page.get("CommonPrefixes", [])}
        files |= {each["Key"][len(inside) :] for each in page.get("Contents", [])}
    return folders - {""}, files - {""}


def keys_of(fs: Any, bucket: str, key: str) -> list[str]:
    """The key itself where it is an object, and every key that begins with `key/`."""
    found = [key] if size_of(fs, bucket, key) is not None else []
    for page in pages(fs, Bucket=bucket, Prefix=_inside(key)):
        found += [each["Key"] for each in page.get("Contents", [])]
    return found


def delete_keys(fs: Any, bucket: str, keys: Sequence[str]) -> None:
    """Delete these keys and no others; OSError names the first that the store would not delete."""
    plain = [key for key in keys if not _NOT_IN_XML.search(key)]
    for key in keys:
        if _NOT_IN_XML.search(key):
            fs.call_s3("delete_object", Bucket=bucket, Key=key)
    if len(plain) == 1:
        fs.call_s3("delete_object", Bucket=bucket, Key=plain[0])
        return
    for first in range(0, len(plain), AT_ONCE):
        some = [{"Key": key} for key in plain[first : first + AT_ONCE]]
        told = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": some, "Quiet": True})
        for fault in told.get("Errors", []):  # the answer as a whole is 200
            if fault.get("Code") == "AccessDenied":
                raise PermissionError(fault.get("Key", ""))
            raise OSError(f"{fault.get('Key')}: {fault.get('Message') or fault.get('Code')}")


def refusal(fs: Any, bucket: str) -> Exception | None:
    """Why S3 refuses us, from a request whose answer has room for a reason; None where that succeeds."""
    try:
        fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except Exception as error:  # whatever it is, the caller has an error already
        return error
    return None


def _inside(key: str) -> str:
    return f"{key}/" if key else ""


def pages(fs: Any, **asked: Any) -> Iterator[dict[str, Any]]:
    """The pages of a listing."""
    while True:
        page = fs.call_s3("list_objects_v2", **asked)
        yield page
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]
