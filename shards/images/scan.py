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
    """What is known of one image before it is read.

    `read` returns the image file's own bytes (JPEG, PNG, TIFF, BMP) or pixels: (H, W) grey or
    (H, W, 3) RGB, uint8 or uint16. It must be picklable, so that other processes can call it; it
    raises DataError or OSError where the image cannot be had.
    """

    key: str
    """Unique in the set, without dots or slashes."""
    origin: str
    """What to call this image in messages: its path below the source's folder."""
    source: str
    """Name of the source."""
    read: Callable[[], bytes | Pixels]
    size: int | None = None
    """Bytes of the image file, where there is one: tells a changed file from the one before."""
    label: str | None = None
    patient: str | None = None
    eye: str | None = None
    volume: str | None = None
    slice: int | None = None
    split: str | None = None
    """`train`, `val` or `test` where the source brings a split."""
    group: str | None = None
    """Folder or file that may hold several volumes of one person: kept together where no patient is known."""
    extra: Callable[[], Mapping[str, Any]] | None = None
    """More fields for the sample's JSON, read when the image is; picklable."""

    def fields(self) -> dict[str, str | int | None]:
        """The fields of the sample's JSON."""
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
    """In a fixed order; not read yet."""
    notes: tuple[str, ...] = ()
    """What was passed over, and what differs from the set as it was published; one line each."""


def safe_key(text: str) -> str:
    """A WebDataset key from any name: letters, digits, `_` and `-` (a dot would cut the key)."""
    key = _UNSAFE.sub("_", text).strip("_") or "image"
    return key if len(key) <= MAX_KEY else f"{key[: MAX_KEY - 9]}-{_digest(text)}"


def unique_keys(paths: Sequence[str]) -> list[str]:
    """One key for each path below a folder, extension left out.

    Paths that would share a key (`a.b.jpg`, `a_b.jpg`) each get a suffix drawn from the path, so
    that no key depends on the order of the paths.
    """
    plain = [safe_key(os.path.splitext(path)[0]) for path in paths]
    if len(set(plain)) == len(plain):
        return plain
    count = Counter(plain)
    keys = [
        key if count[key] == 1 else f"{key[: MAX_KEY - 9]}-{_digest(path)}"
        for key, path in zip(plain, paths, strict=True)
    ]
    if len(set(keys)) < len(keys):  # a suffixed key met a plain one, or two digests met
        keys = [f"{key[: MAX_KEY - 17]}-{_digest(path, 16)}" for key, path in zip(plain, paths, strict=True)]
    return keys


def _digest(text: str, length: int = 8) -> str:
    # fsencode: names of files may hold bytes that are no UTF-8.
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:length]
