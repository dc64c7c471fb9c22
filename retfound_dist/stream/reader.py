"""One sample out of a shard: bytes to pixels, strictly; a bad one is replaced, by name.

A bad sample is replaced by the next good one of its shard, whoever reads it, so the replacement is
the same at every world size.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retfound_dist.errors import DataError
from retfound_dist.stream.cache import OpenShard

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """A decoded image: (H, W) uint8 grey, or (H, W, 3) RGB."""

    key: str
    pixels: Pixels
    fault: str = ""
    """What was wrong with the samples this one stands in for."""


def read_sample(shard: OpenShard, index: int, grey: bool = True) -> Sample:
    """Sample `index` of a shard, or the next good one after it; DataError when none is good."""
    faults: list[str] = []
    for offset in range(len(shard.entries)):
        entry = shard.entries[(index + offset) % len(shard.entries)]
        data = shard.data[entry.image_offset : entry.image_offset + entry.image_bytes]
        try:
            return Sample(entry.key, decode(data, grey), "; ".join(faults))
        except ValueError as error:
            faults.append(f"{shard.shard.name}/{entry.key}.{entry.extension}: {error}")
    raise DataError(
        f"no image in shard {shard.shard.name} can be read, the first: {faults[0]}: pack the set again"
    )


def decode(data: bytes, grey: bool) -> Pixels:
    """Image file bytes to (H, W) uint8, or (H, W, 3) unless `grey`; ValueError when they are damaged.

    JPEGs go through simplejpeg, which refuses truncated and zeroed data that Pillow would decode
    without a word.
    """
    if data[:2] == b"\xff\xd8":
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY" if grey else "RGB", strict=True)
        return pixels[:, :, 0] if grey else pixels
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image ({error})") from error
