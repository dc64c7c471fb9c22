"""One B-scan of a source, with its label, patient, eye, volume and slice."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.files.skipped_files import printable as printable

Pixels = NDArray[np.generic]
MAX_KEY = 80
"""Characters in a key: with its extension it fits the 100 of a plain tar header."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


# Slots: a set of 1.6 million images holds as many of these in memory.
@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """One image of a source, described without reading it.

    `read` returns the bytes of the image file (JPEG, PNG, TIFF, BMP) or pixels: (H, W) grey or (H, W, 3) RGB,
    uint8 or uint16. It must be picklable, because worker processes call it. It raises DataError or OSError
    if the image cannot be read.
    """

    key: str
    """Unique in the set, without dots or slashes."""
    origin: str
    """Its name in messages: its path below the source's folder."""
    source: str
    """Name of the source."""
    read: Callable[[], bytes | Pixels]
    size: int | None = None
    """Bytes of the image file, if there is one. Another size shows that the file has changed."""
    label: str | None = None
    patient: str | None = None
    eye: str | None = None
    volume: str | None = None
    slice: int | None = None
    split: str | None = None
    """`train`, `val` or `test` if the source has a split."""
    group: str | None = None
    """Folder or file that may hold several volumes of one person: stays together if no patient is known."""
    extra_fields: Callable[[], Mapping[str, Any]] | None = None
    """Returns more fields for the sample's JSON; called after `read`, picklable."""

    def json_fields(self) -> dict[str, str | int | None]:
        """Returns the fields of the sample's JSON."""
        return {
            "label": self.label,
            "patient": self.patient,
            "eye": self.eye,
            "volume": self.volume,
            "slice": self.slice,
            "source": self.source,
            "split": self.split,
            **({"group": self.group} if self.patient is None and self.group is not None else {}),
        }


@dataclass(frozen=True)
class SourceListing:
    """All scans of a source, and notes about it."""

    scans: Sequence[Scan]
    """In a fixed order."""
    notes: tuple[str, ...] = ()
    """One line per note: skipped files, differences from the published set."""
    others: tuple[str, ...] = ()
    """Files of a folder of device files that belong to none of the scans."""


def safe_key(text: str) -> str:
    """Returns a WebDataset key for any name: letters, digits, `_` and `-` (a dot would end the key)."""
    key = _UNSAFE.sub("_", text).strip("_") or "image"
    return key if len(key) <= MAX_KEY else f"{key[: MAX_KEY - 9]}-{_digest(text)}"


def unique_keys(paths: Sequence[str]) -> list[str]:
    """Returns one key for each path below a folder, without the extension.

    Paths that would share a key (`a.b.jpg`, `a_b.jpg`) each get a digest of the path as a suffix, so that no
    key depends on the order of the paths.
    """
    plain_keys = [safe_key(os.path.splitext(path)[0]) for path in paths]
    if len(set(plain_keys)) == len(plain_keys):
        return plain_keys
    count = Counter(plain_keys)
    keys = [
        key if count[key] == 1 else f"{key[: MAX_KEY - 9]}-{_digest(path)}"
        for key, path in zip(plain_keys, paths, strict=True)
    ]
    if len(set(keys)) < len(keys):  # a key with a suffix equals another key
        keys = [
            f"{key[: MAX_KEY - 17]}-{_digest(path, 16)}" for key, path in zip(plain_keys, paths, strict=True)
        ]
    return keys


def _digest(text: str, length: int = 8) -> str:
    # fsencode, because names of files may hold bytes that are not UTF-8.
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:length]
