"""One image: whatever a source yields -> checked 8-bit pixels -> what is stored.

Stored images are grey (H, W) wherever the picture is grey, RGB (H, W, 3) where it really has colour,
8 bit, and never larger than they came.

Files are decoded as `retfound_dist.images.decoding` says, 16-bit and floating-point arrays scaled likewise.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.config.schema import PackImage
from retfound_dist.config.schema.pack_settings import Suspect
from retfound_dist.errors import DataError
from retfound_dist.images import decoding, jpeg
from retfound_dist.images.channels import scale
from retfound_dist.images.decoding import check_pixel_count, check_sides, drop_colour
from retfound_dist.images.image_digests import file_digest, grey_digest
from shards.images.scan import Pixels
from shards.images.suspects import suspect_of
from shards.images.viewer_frames import without_frame

Bytes8 = NDArray[np.uint8]
Histogram = NDArray[np.uint32]
LEVELS_OF = 20_000
"""Pixels of an image, in whole rows, that its levels are counted from; of smaller ones all."""
BLANK_RANGE = 2
"""An image whose levels span no more than this shows nothing."""
SATURATED_LEVEL, SATURATED_SHARE = 250, 0.6
"""A scan with more than this share at the top shows no tissue; white frames of turned scans take less."""


@dataclass(frozen=True)
class Stored:
    """An image as it goes into a shard."""

    data: bytes
    extension: str
    pixels: Bytes8
    levels: Histogram
    """See `count_levels`."""
    as_is: bool
    """The source's own compressed picture, not encoded again."""
    suspect: Suspect | None = None
    """What it probably is instead of a B-scan (shards.images.suspects)."""
    source: tuple[int, int] = (0, 0)
    """Digests of the source's file and of its grey pixels; 0: no file, and the same as `pixels`'s."""


def prepare_image(content: bytes | Pixels, image: PackImage) -> Stored:
    """What is stored of an image; DataError says why it cannot be used.

    A grey, upright JPEG of the wanted size keeps its compressed picture and loses its metadata.
    """
    came = decoding.decode_stored(content) if isinstance(content, bytes) else from_pixels(content)
    whole = drop_colour(came)
    pixels = check_sides(trim(whole) if image.trim else whole)
    # Encoding a JPEG again would lose quality and takes most of the time of packing.
    if isinstance(content, bytes) and pixels.shape == whole.shape and _stays(content, image):
        data, levels = jpeg.without_metadata(content), check_levels(pixels)
        source, suspect = source_digests(content, whole, pixels), suspect_of(pixels, came)
        return Stored(data, "jpg", pixels, levels, as_is=True, suspect=suspect, source=source)
    pixels = scale_down(pixels, image.max_height)
    levels, suspect = check_levels(pixels), suspect_of(pixels, came)
    source, data = source_digests(content, whole, pixels), encode(pixels, image)
    return Stored(data, image.format, pixels, levels, as_is=False, suspect=suspect, source=source)


def source_digests(content: bytes | Pixels, whole: Bytes8, packed: Bytes8) -> tuple[int, int]:
    """Digests that identify the source image: of its file, and of its pixels where packing changes them."""
    unchanged = whole.ndim == 2 and whole.shape == packed.shape
    return (
        file_digest(content) if isinstance(content, bytes) else 0,
        0 if unchanged else grey_digest(whole),
    )


def _stays(data: bytes, image: PackImage) -> bool:
    """Whether a file is stored as it is: a grey, upright JPEG that is not too tall."""
    if not jpeg.is_jpeg(data):
        return False
    height, _, colours = jpeg.header(data)
    return colours == "Gray" and not _too_tall(height, image) and jpeg.orientation(data) == 1


def decode(content: bytes | Pixels) -> Bytes8:
    """Pixels of an image file or array: (H, W) where it is grey, else (H, W, 3), 8 bit.

    DataError when it is broken, no image, or larger than any B-scan.
    """
    if not isinstance(content, bytes):
        return from_pixels(content)
    return decoding.decode(content)


def check_levels(pixels: Bytes8) -> Histogram:
    """Counts the levels in some of the rows; DataError where the picture is blank or saturated.

    All pixels are counted before a picture is refused.
    """
    levels = count_levels(pixels)
    used = np.flatnonzero(levels)
    if used[-1] - used[0] <= BLANK_RANGE and int(np.ptp(pixels)) <= BLANK_RANGE:
        raise DataError(f"is blank (levels {pixels.min()} to {pixels.max()})")
    # Half of the limit: the counted rows may show less of the white than all pixels do.
    if levels[SATURATED_LEVEL:].sum() > SATURATED_SHARE / 2 * levels.sum():
        bright = float((pixels >= SATURATED_LEVEL).mean())
        if bright > SATURATED_SHARE:
            raise DataError(f"is saturated ({100 * bright:.0f} % of it at level {SATURATED_LEVEL} or above)")
    return levels


def count_levels(pixels: Bytes8) -> Histogram:
    """(256,) counts of the levels in evenly spaced rows, some LEVELS_OF pixels; of colour, all channels."""
    step = max(1, pixels.shape[0] * pixels.shape[1] // LEVELS_OF)
    rows = pixels[min(step, pixels.shape[0]) // 2 :: step]
    counts = Image.fromarray(np.ascontiguousarray(rows)).histogram()  # five times as fast as NumPy's
    levels: Histogram = np.asarray(counts, np.uint32).reshape(-1, 256).sum(axis=0, dtype=np.uint32)
    return levels


def encode(pixels: Bytes8, image: PackImage) -> bytes:
    """Pixels as a JPEG, PNG or (lossless) WebP file."""
    if image.format == "jpg":
        return jpeg.encode(pixels, image.quality)
    buffer = io.BytesIO()
    if image.format == "webp":
        # In lossless mode `quality` is the effort of compressing and loses nothing (libwebp).
        Image.fromarray(pixels).convert("RGB").save(buffer, "WEBP", lossless=True, quality=0, method=4)
        return buffer.getvalue()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def from_pixels(pixels: Pixels) -> Bytes8:
    """An array of any depth as 8-bit pixels, grey where it is grey."""
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(f"has pixels of shape {pixels.shape}, not (height, width) or (height, width, 3)")
    check_pixel_count(*pixels.shape[:2])
    return drop_colour(scale(pixels))


def scale_down(pixels: Bytes8, max_height: int) -> Bytes8:
    """Scales a taller picture down to `max_height`, antialiased, at the same ratio. 0: no limit."""
    height, width = pixels.shape[:2]
    if not max_height or height <= max_height:
        return pixels
    size = (max(1, round(width * max_height / height)), max_height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def trim(pixels: Bytes8) -> Bytes8:
    """Cuts off a frame at the edges (viewer_frames.py), and flat rows and columns around it and inside it."""
    # Flat margins lie around a frame and inside of it: around it they would hide it.
    return np.ascontiguousarray(_without_flat(without_frame(_without_flat(pixels))))


def _without_flat(pixels: Bytes8) -> Bytes8:
    """Cuts off rows and columns at the edges that span at most BLANK_RANGE levels."""
    flat = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    rows = np.flatnonzero(np.ptp(flat, axis=1) > BLANK_RANGE)
    columns = np.flatnonzero(np.ptp(flat, axis=0) > BLANK_RANGE)
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _too_tall(height: int, image: PackImage) -> bool:
    return bool(image.max_height) and height > image.max_height
