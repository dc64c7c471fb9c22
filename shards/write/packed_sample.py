"""Turns a scan into a sample of a shard, or into the reason why it is skipped. Runs in any process."""

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
from shards.images.preparation import Histogram, StoredImage, prepare_image
from shards.images.scan import Scan
from shards.images.suspects import EVIDENCE, suspect_name
from shards.write.ustar import member


@dataclass(frozen=True, slots=True)
class PackedSample:
    """An image and its JSON, ready to be written."""

    key: str
    extension: str
    members: bytes
    """The two tar members, image and JSON, one after the other."""
    image_bytes: int
    image_sha256: str
    """See `retfound_dist.formats.shard_set.image_digest`."""
    json_bytes: int
    split_label_patient: tuple[Any, Any, Any]
    """As in the JSON."""
    height: int
    width: int
    grey: bool
    as_is: bool
    """Whether the source's compressed data is stored, not encoded again."""
    encoding_error: tuple[int, int] | None
    """(sum of squared differences, pixels) between the encoded and the original image; None: not measured."""
    histogram: Histogram
    """(256,) see `shards.images.preparation.count_levels`."""
    digest: int
    """Digest of the pixels: equal for equal pictures."""
    source_digests: tuple[int, int]
    """See `shards.images.preparation.StoredImage`."""
    difference_hash: bytes
    """Nearly equal for pictures that look alike (shards.images.near_duplicates)."""
    suspect: str | None = None
    """Kind of picture that this probably is instead of a B-scan (shards.images.suspects)."""


MEASURE_ONE_IN = 8
"""One in so many encoded images is decoded again, to measure the loss of the encoding."""
LOOKS_LIKE = "looks like "
"""Beginning of the reason for a picture that was left out on request (image.leave_out_suspects)."""
SAME_PICTURE = "is the same picture as "
"""Beginning of the reason for a duplicate."""


@dataclass(frozen=True)
class Skipped:
    """A scan that is not packed, and the reason."""

    key: str
    origin: str
    reason: str

    def __str__(self) -> str:
        """Path and reason in one line."""
        return f"{self.origin} {self.reason}"

    @property
    def is_duplicate(self) -> bool:
        """Whether the set has the same picture under another key."""
        return self.reason.startswith(SAME_PICTURE)

    @property
    def is_bad(self) -> bool:
        """Whether it counts against the budget of bad images. Duplicates and suspects do not count."""
        return not self.reason.startswith((SAME_PICTURE, LOOKS_LIKE))

    @staticmethod
    def from_row(row: Mapping[str, str]) -> Skipped:
        """The inverse of `row`. Fields of later versions are ignored."""
        return Skipped(row["key"], row["origin"], row["reason"])

    def to_row(self) -> dict[str, str]:
        """Returns its entry in the manifest."""
        return {"key": self.key, "origin": self.origin, "reason": self.reason}


def make_sample(scan: Scan, *, image: PackImage) -> PackedSample | Skipped:
    """Read, check and encode one scan."""
    try:
        stored = prepare_image(scan.read(), image)
        if stored.suspect in image.leave_out_suspects:
            return Skipped(
                scan.key,
                scan.origin,
                f"{LOOKS_LIKE}{suspect_name(stored.suspect)} ({EVIDENCE[stored.suspect]})",
            )
        extra = scan.extra_fields() if scan.extra_fields else {}
    except DataError as error:
        return Skipped(scan.key, scan.origin, str(error))
    except Exception as error:  # decoders raise any error on a hostile file; it counts against the budget
        return Skipped(scan.key, scan.origin, f"cannot be read ({_one_line(error)})")
    return _packed_sample(scan, stored, extra)


def _packed_sample(scan: Scan, stored: StoredImage, extra: Mapping[str, Any]) -> PackedSample:
    """The bytes of an image in the tar, and all that index and manifest record of it.

    `extra`: further fields of its JSON.
    """
    height, width = stored.pixels.shape[:2]
    tree: dict[str, Any] = {**scan.json_fields(), **extra, "height": height, "width": width}
    fields = json.dumps(tree, separators=(",", ":")).encode()
    return PackedSample(
        key=scan.key,
        extension=stored.extension,
        # Headers and padding are made in the worker, so that the one process that writes only appends bytes.
        members=member(f"{scan.key}.{stored.extension}", stored.data) + member(f"{scan.key}.json", fields),
        image_bytes=len(stored.data),
        image_sha256=image_digest(stored.data),
        json_bytes=len(fields),
        split_label_patient=(tree["split"], tree["label"], tree["patient"]),
        height=height,
        width=width,
        grey=stored.pixels.ndim == 2,
        as_is=stored.as_is,
        encoding_error=_encoding_error(scan.key, stored),
        histogram=stored.histogram,
        digest=pixel_digest(stored.pixels),
        source_digests=stored.source_digests,
        difference_hash=difference_hash(stored.pixels),
        suspect=stored.suspect,
    )


def _encoding_error(key: str, stored: StoredImage) -> tuple[int, int] | None:
    """Measures the loss of encoding for one in MEASURE_ONE_IN keys. The key's checksum chooses them."""
    if stored.as_is or stored.extension != "jpg" or zlib.crc32(key.encode()) % MEASURE_ONE_IN:
        return None
    grey = stored.pixels.ndim == 2
    decoded = jpeg.decode(stored.data, "GRAY" if grey else "RGB").reshape(stored.pixels.shape)
    return int(((decoded.astype(np.int32) - stored.pixels) ** 2).sum()), stored.pixels.size


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0][:200] if lines and lines[0] else type(error).__name__
