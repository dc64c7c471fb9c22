"""Functions on URLs as text: a path, `file://`, `s3://` or `memory://`. They never access a store.

URLs stay strings: `pathlib` would turn `s3://bucket` into `s3:/bucket`.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from functools import lru_cache

from retfound_dist.errors import StorageError

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_MISSPELT_URL = re.compile(
    r"^\s*(s3|s3a|s3n|gs|gcs|az|abfs|memory|file|https?):/*(.*)$", re.IGNORECASE | re.DOTALL
)
"""Texts that were probably meant as a URL: with one slash or none, or with a space before it."""
_S3_ALIASES = {"s3a": "s3", "s3n": "s3"}
"""Hadoop's names for S3."""


def is_local(url: str) -> bool:
    """Whether the URL is a plain path or `file://`."""
    return scheme_of(url) == "file"


def scheme_of(url: str) -> str:
    """`file`, `s3`, `memory`, ... in small letters."""
    # Without a pattern for plain paths: a long list of runs asks a hundred thousand times.
    match = _SCHEME.match(url) if "://" in url else None
    return match[1].lower() if match else "file"


def local_path(url: str) -> str:
    """The path behind a local URL."""
    check_spelling(url)
    if not is_local(url):
        raise StorageError(f"{url} is not a local path: give a path on this machine")
    return _without_file_scheme(url)


def _without_file_scheme(url: str) -> str:
    # No shell expands `~` in a value of a TOML file.
    return os.path.expanduser(url[len("file://") :] if _SCHEME.match(url) else url)


def join(url: str, *parts: str) -> str:
    """Append path components to a URL."""
    return posixpath.join(url.rstrip("/") if len(url) > 1 else url, *parts)


def is_same(one: str, other: str) -> bool:
    """Whether two URLs mean the same place. A trailing slash, `file://` and relative paths do not matter."""

    def plain(url: str) -> str:
        return os.path.abspath(local_path(url)) if is_local(url) else url.rstrip("/")

    return plain(one) == plain(other)


def name(url: str) -> str:
    """The last component of a URL."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def bucket_of(url: str) -> str:
    """The bucket of an S3 URL."""
    return _without_scheme(url).partition("/")[0]


def key_of(url: str) -> str:
    """The key of an S3 URL as it is written, without slashes at its end."""
    return _without_scheme(url).partition("/")[2].rstrip("/")


def store_path(url: str) -> str:
    """The path of a URL in its store: exactly the key as it is written. Its spelling is not checked."""
    scheme = scheme_of(url)
    if scheme == "file":
        return os.path.abspath(_without_file_scheme(url))
    rest = _without_scheme(url).rstrip("/")
    return "/" + rest.lstrip("/") if scheme == "memory" else f"{scheme}://{rest}"


def check_spelling(url: str) -> None:
    """Raises StorageError for a misspelt URL, and gives the right spelling."""
    if not url.strip():
        raise StorageError("the path is empty: give a path, or a URL such as s3://BUCKET/FOLDER")
    if "\0" in url:
        raise StorageError(f"{url!r} contains a zero byte, which no file name can have: give another path")
    # `s3:/bucket` is a valid local path too. A run would then write to a folder named `s3:` on the disk.
    misspelt, scheme = _MISSPELT_URL.match(url), scheme_of(url)
    if ("://" in url and _USER.search(url)) or (scheme == "s3" and "@" in bucket_of(url)):
        raise StorageError(
            f"{mask(url)} contains credentials: remove them from the URL and set them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile); "
            "replace them if others have seen them"
        )
    if misspelt and (not _SCHEME.match(url) or scheme in _S3_ALIASES):
        raise StorageError(f"{url} is not a valid URL: write {_right_spelling(misspelt[1], misspelt[2])}")
    if scheme in ("http", "https"):
        raise StorageError(
            f"{url} is a web address: give a local path or s3://BUCKET/FOLDER "
            "(for your own S3 server, set its address in the environment variable AWS_ENDPOINT_URL)"
        )
    if scheme == "file":
        return
    if not _without_scheme(url).strip("/") or (scheme == "s3" and not bucket_of(url)):
        raise StorageError(f"{url} has no bucket: write {scheme}://BUCKET/FOLDER")
    if {".", ".."} & set(_without_scheme(url).split("/")):
        raise StorageError(
            f"{url} contains . or .. as a folder, which a store does not resolve: write the URL without them"
        )


def _right_spelling(scheme: str, rest: str) -> str:
    scheme = _S3_ALIASES.get(scheme.lower(), scheme.lower())
    return f"file:///{rest}, or the plain path /{rest}" if scheme == "file" else f"{scheme}://{rest}"


def _without_scheme(url: str) -> str:
    match = _SCHEME.match(url)
    return url[match.end() :] if match else url


MASK = "***"
_USER = re.compile(r"(?<=://)[^\s/@'\"<>\\]*:(?!\d{1,5}(?:[/?#]|$))[^\s@'\"<>\\]*@|(?<=://)[^\s/:@'\"<>\\]+@")
"""`KEY:SECRET@` or `TOKEN@` before a host or bucket. A secret may contain slashes. A port is not a secret."""
_NAMED_SECRET = re.compile(
    r"(?i)((?:x-amz-(?:signature|credential|security-token)|awsaccesskeyid|x-goog-(?:signature|credential)|"
    r"(?<=[?&])(?:signature|sig|token|key|access_token|secret|password|pwd|se|sp))=|"
    r"[\"']?(?:aws_)?(?:secret_?access_?key|session_?token|access_?key_?id|security_?token)[\"']?\s*[=:]\s*[\"']?|"
    r"[\"']?(?:hf_token|hugging_?face_?hub_token|retfound_salt|password)[\"']?\s*[=:]\s*[\"']?|"
    r"authorization[\"']?\s*[=:]\s*[\"']?(?:basic\s+|bearer\s+)?|\bbearer\s+(?=\S{16})|credential=|signature=)"
    r"([^\s&'\",;<>\\]+)"
)
"""A secret after its name: in a query, a header, printed settings, JSON."""
_TOKEN_FORMS = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bhf_[A-Za-z0-9]{30,}\b")
"""Access keys and tokens that are recognized by their form."""
_PICTURE = re.compile(r"(;base64,[A-Za-z0-9+/=]+)")
"""Pictures in pages. They are long, and may contain by chance what looks like a secret."""
_SECRET_NAMES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "RETFOUND_SALT"),
)
_JSON_KEY = re.compile(r"\"\s*:\s*$")
MIN_SECRET_LENGTH, MIN_SECRET_LENGTH_IN_FILES = 8, 16
"""Shortest value of the environment that is masked wherever it occurs. Shorter values may be ordinary words,
and the text of a file that is read again must not change by chance."""
_SECRET_HINTS = (
    *("amz-", "goog-", "secret", "token", "access", "passw", "pwd", "salt", "bearer", "authoriz"),
    *("credential", "signature", "sig=", "key=", "se=", "sp=", "akia", "asia", "hf_"),
)
"""Every text with a secret that a pattern below `_USER` finds contains one of these, in small letters."""


def mask(text: str, env: Mapping[str, str] | None = None, min_length: int = MIN_SECRET_LENGTH) -> str:
    """Masks the secrets in a text: credentials in URLs, signatures, tokens, and values of the environment.

    All output goes through this function: terminals and logs (retfound_dist.runtime.terminal), text files
    (storage.write_text), live pages. Texts without secrets come back as they are.
    """
    if _PICTURE.search(text):
        parts = _PICTURE.split(text)
        return "".join(part if index % 2 else mask(part, env, min_length) for index, part in enumerate(parts))
    env = os.environ if env is None else env
    for value in _secrets(tuple(env.get(name, "") for name in _SECRET_NAMES), min_length):
        if value in text:
            text = text.replace(value, MASK)
    if "://" in text:
        text = _USER.sub(f"{MASK}@", text)
    # The long patterns are slow, and nearly no line of a log holds a secret: a search for fixed words comes
    # first.
    if not _has_secret_hint(text):
        return text
    return "\n".join(_mask_line(line) if _has_secret_hint(line) else line for line in text.split("\n"))


def _has_secret_hint(text: str) -> bool:
    lowered = text.lower()
    return any(hint in lowered for hint in _SECRET_HINTS)


def _mask_line(line: str) -> str:
    return _TOKEN_FORMS.sub(MASK, _NAMED_SECRET.sub(_mask_value, line))


@lru_cache(maxsize=8)
def _secrets(values: tuple[str, ...], min_length: int) -> tuple[str, ...]:
    # The longest first: a shorter secret may be a part of a longer one.
    return tuple(sorted({value for value in values if len(value) >= min_length}, key=len, reverse=True))


def _mask_value(match: re.Match[str]) -> str:
    """Masks one value. A value without quotes after a JSON key (a number, null) stays, so that JSON stays
    valid."""
    is_bare = _JSON_KEY.search(match[1]) is not None
    return match[0] if is_bare or match[2].startswith(MASK) else f"{match[1]}{MASK}"
