"""Turns a scan into a sample of a shard, or into the reason why it is left out. Runs in any process."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retfound_dist.config.schema import PackImage
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import image_digest
from retfound_dist.images import jpeg
from retfound_dist.images.image_digests import pixel_digest
from shards.images.near_duplicates import difference_hash
from shards.images.preparation import Histogram, Stored, prepare_image
from shards.images.scan import Scan
from shards.images.suspects import WHY, suspect_name
from shards.write.ustar import member


@dataclass(frozen=True, slots=True)
class PackedSample:
    """An image and its JSON, ready to be written."""

    key: str
    extension: str
    members: bytes
    """The image's and the JSON's members of a tar, one after the other."""
    image_bytes: int
    image_sha256: str
    """See `retfound_dist.formats.shard_set.image_digest`."""
    json_bytes: int
    told: tuple[Any, Any, Any]
    """Part, label and patient, as the JSON says them."""
    height: int
    width: int
    grey: bool
    as_is: bool
    """The source's own compressed picture."""
    error: tuple[int, int] | None
    """(sum of squared differences, pixels) of what is stored from what was encoded; None: not measured."""
    histogram: Histogram
    """(256,) see `shards.images.preparation.count_levels`."""
    digest: int
    """Of the pixels: equal for equal pictures."""
    source: tuple[int, int]
    """See `shards.images.preparation.Stored`."""
    look: bytes
    """See shards.images.near_duplicates: nearly equal for pictures that look alike."""
    suspect: str | None = None
    """What it probably is instead of a B-scan (shards.images.suspects)."""


MEASURED_ONE_IN = 8
"""Of so many encoded images one is decoded again to see what the encoding has lost."""
LIKE = "looks like "
"""How the reason begins for a picture that was left out on request (image.leave_out_suspects)."""
SAME = "is the same picture as "
"""How the reason begins for a scan that another one stands for."""


@dataclass(frozen=True)
class Skipped:
    """A scan that is kept out, and why."""

    key: str
    origin: str
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.origin} {self.reason}"

    @property
    def is_duplicate(self) -> bool:
        """Whether its picture is in the set under another key."""
        return self.reason.startswith(SAME)

    @property
    def is_bad(self) -> bool:
        """Whether it counts against the budget of bad images: no duplicate, not left out on request."""
        return not self.reason.startswith((SAME, LIKE))

    @staticmethod
    def of(row: Mapping[str, str]) -> Skipped:
        """The inverse of `row`. Fields of later versions are ignored."""
        return Skipped(row["key"], row["origin"], row["reason"])

    def row(self) -> dict[str, str]:
        """How it stands in the manifest."""
        return {"key": self.key, "origin": self.origin, "reason": self.reason}


def make_sample(scan: Scan, *, image: PackImage) -> PackedSample | Skipped:
    """Read, check and encode one scan."""
    try:
        stored = prepare_image(scan.read(), image)
        if stored.suspect in image.leave_out_suspects:
            return Skipped(
                scan.key, scan.origin, f"{LIKE}{suspect_name(stored.suspect)} ({WHY[stored.suspect]})"
            )
        extra = scan.extra() if scan.extra else {}
    except DataError as error:
        return Skipped(scan.key, scan.origin, str(error))
    except Exception as error:  # a hostile file makes decoders raise anything; budget and report catch it
        return Skipped(scan.key, scan.origin, f"cannot be read ({_one_line(error)})")
    return _sample(scan, stored, extra)


def _sample(scan: Scan, stored: Stored, extra: Mapping[str, Any]) -> PackedSample:
    height, width = stored.pixels.shape[:2]
    tree: dict[str, Any] = {**scan.fields(), **extra, "height": height, "width": width}
    fields = json.dumps(tree, separators=(",", ":")).encode()
    return PackedSample(
        key=scan.key,
        extension=stored.extension,
        # Headers and padding are made here, in the worker: the one process that writes only appends.
        members=member(f"{scan.key}.{stored.extension}", stored.data) + member(f"{scan.key}.json", fields),
        image_bytes=len(stored.data),
        image_sha256=image_digest(stored.data),
        json_bytes=len(fields),
        told=(tree["split"], tree["label"], tree["patient"]),
        height=height,
        width=width,
        grey=stored.pixels.ndim == 2,
        as_is=stored.as_is,
        error=_error(scan.key, stored),
        histogram=stored.levels,
        digest=pixel_digest(stored.pixels),
        source=stored.source,
        look=difference_hash(stored.pixels),
        suspect=stored.suspect,
    )


def _error(key: str, stored: Stored) -> tuple[int, int] | None:
    """The loss of encoding, for one in MEASURED_ONE_IN keys. The key's checksum decides, in any process."""
    if stored.as_is or stored.extension != "jpg" or zlib.crc32(key.encode()) % MEASURED_ONE_IN:
        return None
    grey = stored.pixels.ndim == 2
    shown = jpeg.decode(stored.data, "GRAY" if grey else "RGB").reshape(stored.pixels.shape)
    return int(((shown.astype(np.int32) - stored.pixels) ** 2).sum()), stored.pixels.size


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0][:200] if lines and lines[0] else type(error).__name__
