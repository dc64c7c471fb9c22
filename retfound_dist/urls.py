"""URLs as text: a path, `file://`, `s3://` or `memory://`; nothing here looks at a store.

URLs stay strings: `pathlib` would turn `s3://bucket` into `s3:/bucket`.
"""

from __future__ import annotations

import os
import posixpath
import re

from retfound_dist.errors import StorageError

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_NEARLY = re.compile(r"^\s*(s3|s3a|s3n|gs|gcs|az|abfs|memory|file|https?):/*(.*)$", re.IGNORECASE | re.DOTALL)
"""What a person meant as a URL: one slash or none, or a space before it."""
_OF_S3 = {"s3a": "s3", "s3n": "s3"}
"""Hadoop's names for S3."""


def is_local(url: str) -> bool:
    """Whether the URL is a plain path or `file://`."""
    return scheme_of(url) == "file"


def scheme_of(url: str) -> str:
    """`file`, `s3`, `memory`, ... in small letters."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else "file"


def local_path(url: str) -> str:
    """The path behind a local URL."""
    check_spelling(url)
    if not is_local(url):
        raise StorageError(f"{url} is not on this machine's disk: give a local path here")
    return os.path.expanduser(url[len("file://") :] if _SCHEME.match(url) else url)


def join(url: str, *parts: str) -> str:
    """Append path components to a URL."""
    return posixpath.join(url.rstrip("/") if len(url) > 1 else url, *parts)


def is_same(one: str, other: str) -> bool:
    """Whether two URLs are spellings of one place: a trailing slash, `file://`, a relative path."""

    def plain(url: str) -> str:
        return os.path.abspath(local_path(url)) if is_local(url) else url.rstrip("/")

    return plain(one) == plain(other)


def name(url: str) -> str:
    """The last component of a URL."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def bucket_of(url: str) -> str:
    """The bucket of an S3 URL."""
    return _rest(url).partition("/")[0]


def key_of(url: str) -> str:
    """The key of an S3 URL, as it is written, without slashes at its end."""
    return _rest(url).partition("/")[2].rstrip("/")


def store_path(url: str) -> str:
    """What the store of a URL calls the file there: exactly the key that is written."""
    scheme = scheme_of(url)
    if scheme == "file":
        return os.path.abspath(local_path(url))
    rest = _rest(url).rstrip("/")
    return "/" + rest.lstrip("/") if scheme == "memory" else f"{scheme}://{rest}"


def check_spelling(url: str) -> None:
    """StorageError for what is nearly a URL, with the right spelling; a path named `s3:` is nobody's."""
    if not url.strip():
        raise StorageError("an empty path was given: give a path, or a URL such as s3://BUCKET/FOLDER")
    if "\0" in url:
        raise StorageError(f"{url!r} holds a zero byte: no file can be named so")
    near, scheme = _NEARLY.match(url), scheme_of(url)
    if near and (not _SCHEME.match(url) or scheme in _OF_S3):
        raise StorageError(f"{url} is not a URL that can be opened: write {_well_spelt(near[1], near[2])}")
    if scheme in ("http", "https"):
        raise StorageError(
            f"{url} is a web address: give a local path or s3://BUCKET/FOLDER "
            "(the address of your own S3 server goes into the environment variable AWS_ENDPOINT_URL)"
        )
    if scheme == "file":
        return
    if not _rest(url).strip("/") or (scheme == "s3" and not bucket_of(url)):
        raise StorageError(f"{url} names no bucket: write {scheme}://BUCKET/FOLDER")
    if {".", ".."} & set(_rest(url).split("/")):
        raise StorageError(f"{url} has . or .. between slashes, which no store follows: write the URL out")


def _well_spelt(scheme: str, rest: str) -> str:
    scheme = _OF_S3.get(scheme.lower(), scheme.lower())
    return f"file:///{rest}, or the plain path /{rest}" if scheme == "file" else f"{scheme}://{rest}"


def _rest(url: str) -> str:
    found = _SCHEME.match(url)
    return url[found.end() :] if found else url
