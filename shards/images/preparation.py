"""Prepares one image: file or array from a source -> checked 8-bit pixels -> the stored file.

Stored images have 8 bits. They are grey (H, W) if the picture is grey, and RGB (H, W, 3) if it really has
colour. They are never enlarged.

`retfound_dist.images.decoding` decodes files, and scales arrays of 16 bits or floats in the same way.
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
from retfound_dist.images.channels import scale_to_8_bit
from retfound_dist.images.decoding import check_pixel_count, check_sides, drop_colour
from retfound_dist.images.image_digests import file_digest, grey_digest
from shards.images.scan import Pixels
from shards.images.suspects import suspect_of
from shards.images.viewer_frames import without_frame

Image8 = NDArray[np.uint8]
Histogram = NDArray[np.uint32]
HISTOGRAM_PIXELS = 20_000
"""The histogram counts about so many pixels of an image, in whole rows; of a smaller image all."""
BLANK_RANGE = 2
"""An image whose levels span no more than this is blank."""
SATURATED_LEVEL, SATURATED_SHARE = 250, 0.6
"""A scan with a larger share at this level or above shows no tissue. Frames of rotated scans have less."""


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored in a shard."""

    data: bytes
    extension: str
    pixels: Image8
    histogram: Histogram
    """See `count_levels`."""
    as_is: bool
    """Whether the source's compressed data is stored, not encoded again."""
    suspect: Suspect | None = None
    """Kind of picture that this probably is instead of a B-scan (shards.images.suspects)."""
    source_digests: tuple[int, int] = (0, 0)
    """Digests of the source's file (0: no file) and of its grey pixels (0: equal to `pixels`)."""


def prepare_image(content: bytes | Pixels, image: PackImage) -> StoredImage:
    """Checks, trims, scales and encodes an image; DataError says why it cannot be used.

    A grey, upright JPEG that is neither trimmed nor scaled keeps its compressed data and loses its metadata.
    """
    original = decoding.decode_stored(content) if isinstance(content, bytes) else from_pixels(content)
    untrimmed = drop_colour(original)
    pixels = check_sides(trim(untrimmed) if image.trim else untrimmed)
    # Not encoded again: that would lose quality, and takes most of the time of packing.
    if isinstance(content, bytes) and pixels.shape == untrimmed.shape and _keeps_encoding(content, image):
        data, levels = jpeg.strip_metadata(content), check_levels(pixels)
        source, suspect = source_digests(content, untrimmed, pixels), suspect_of(pixels, original)
        return StoredImage(data, "jpg", pixels, levels, as_is=True, suspect=suspect, source_digests=source)
    pixels = scale_down(pixels, image.max_height)
    levels, suspect = check_levels(pixels), suspect_of(pixels, original)
    source, data = source_digests(content, untrimmed, pixels), encode(pixels, image)
    return StoredImage(
        data, image.format, pixels, levels, as_is=False, suspect=suspect, source_digests=source
    )


def source_digests(content: bytes | Pixels, untrimmed: Image8, packed: Image8) -> tuple[int, int]:
    """Returns digests of the source's file, and of its pixels if packing changes them."""
    unchanged = untrimmed.ndim == 2 and untrimmed.shape == packed.shape
    return (
        file_digest(content) if isinstance(content, bytes) else 0,
        0 if unchanged else grey_digest(untrimmed),
    )


def _keeps_encoding(data: bytes, image: PackImage) -> bool:
    """Whether a file is stored as it is: a grey, upright JPEG that is not too tall."""
    if not jpeg.is_jpeg(data):
        return False
    height, _, colours = jpeg.header(data)
    return colours == "Gray" and not _too_tall(height, image) and jpeg.orientation(data) == 1


def decode(content: bytes | Pixels) -> Image8:
    """Returns the 8-bit pixels of an image file or array: (H, W) if it is grey, else (H, W, 3).

    DataError if it is damaged, not an image, or larger than any B-scan.
    """
    if not isinstance(content, bytes):
        return from_pixels(content)
    return decoding.decode(content)


def check_levels(pixels: Image8) -> Histogram:
    """Counts the levels in some of the rows; DataError if the picture is blank or saturated.

    A picture is refused only after all its pixels were checked.
    """
    levels = count_levels(pixels)
    used = np.flatnonzero(levels)
    if used[-1] - used[0] <= BLANK_RANGE and int(np.ptp(pixels)) <= BLANK_RANGE:
        raise DataError(f"is blank (levels {pixels.min()} to {pixels.max()})")
    # Half of the limit, because the counted rows may hold fewer bright pixels than the others.
    if levels[SATURATED_LEVEL:].sum() > SATURATED_SHARE / 2 * levels.sum():
        bright = float((pixels >= SATURATED_LEVEL).mean())
        if bright > SATURATED_SHARE:
            raise DataError(f"is saturated ({100 * bright:.0f} % of it at level {SATURATED_LEVEL} or above)")
    return levels


def count_levels(pixels: Image8) -> Histogram:
    """Returns (256,) counts of levels in evenly spaced rows, some HISTOGRAM_PIXELS pixels, all channels."""
    step = max(1, pixels.shape[0] * pixels.shape[1] // HISTOGRAM_PIXELS)
    rows = pixels[min(step, pixels.shape[0]) // 2 :: step]
    counts = Image.fromarray(np.ascontiguousarray(rows)).histogram()  # five times as fast as NumPy's
    histogram: Histogram = np.asarray(counts, np.uint32).reshape(-1, 256).sum(axis=0, dtype=np.uint32)
    return histogram


def encode(pixels: Image8, image: PackImage) -> bytes:
    """Returns pixels as a JPEG, PNG or lossless WebP file."""
    if image.format == "jpg":
        return jpeg.encode(pixels, image.quality)
    buffer = io.BytesIO()
    if image.format == "webp":
        # In lossless mode `quality` is the effort of compressing and loses nothing (libwebp).
        Image.fromarray(pixels).convert("RGB").save(buffer, "WEBP", lossless=True, quality=0, method=4)
        return buffer.getvalue()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def from_pixels(pixels: Pixels) -> Image8:
    """Returns an array of any depth as 8-bit pixels; grey if all channels are equal enough."""
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(f"has pixels of shape {pixels.shape}, not (height, width) or (height, width, 3)")
    check_pixel_count(*pixels.shape[:2])
    return drop_colour(scale_to_8_bit(pixels))


def scale_down(pixels: Image8, max_height: int) -> Image8:
    """Scales a taller picture down to `max_height` with its aspect ratio, antialiased. 0: no limit."""
    height, width = pixels.shape[:2]
    if not max_height or height <= max_height:
        return pixels
    size = (max(1, round(width * max_height / height)), max_height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def trim(pixels: Image8) -> Image8:
    """Removes a frame at the edges (viewer_frames.py), and flat margins around it and inside it."""
    # Margins first, because outer margins would hide the frame. Inside the frame there may be more.
    return np.ascontiguousarray(_without_flat(without_frame(_without_flat(pixels))))


def _without_flat(pixels: Image8) -> Image8:
    """Removes rows and columns at the edges that span at most BLANK_RANGE levels."""
    flat = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    rows = np.flatnonzero(np.ptp(flat, axis=1) > BLANK_RANGE)
    columns = np.flatnonzero(np.ptp(flat, axis=0) > BLANK_RANGE)
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _too_tall(height: int, image: PackImage) -> bool:
    return bool(image.max_height) and height > image.max_height
