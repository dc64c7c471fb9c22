"""One image: whatever a source yields -> checked 8-bit pixels -> what is stored.

Stored images are grey (H, W) wherever the picture is grey, RGB (H, W, 3) where it really has colour,
8 bit, and never larger than they came.

16-bit and floating-point images are scaled to 8 bit as `retfound_dist.pixels` says.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from retfound_dist import pixels as scaling
from retfound_dist.errors import DataError
from retfound_dist.schema import PackImage
from shards import jpeg
from shards.frames import without_frame
from shards.record import Pixels

Bytes8 = NDArray[np.uint8]
Histogram = NDArray[np.uint32]
MIN_SIDE = 32
"""Pixels; nothing smaller is a B-scan."""
MAX_PIXELS = 50_000_000
"""Larger images are taken for decompression bombs and not decoded."""
GREY_TOLERANCE = 8
"""Levels by which R, G and B may differ in a grey picture (JPEG rounds its colour differences)."""
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


def prepare(content: bytes | Pixels, image: PackImage) -> Stored:
    """What is stored of an image; DataError says why it cannot be used.

    A grey, upright JPEG of the wanted size keeps its compressed picture and loses its metadata.
    """
    whole = decode(content)
    pixels = check_size(trim(whole) if image.trim else whole)
    if isinstance(content, bytes) and pixels.shape == whole.shape and _stays(content, image):
        return Stored(jpeg.without_metadata(content), "jpg", pixels, check_levels(pixels), as_is=True)
    pixels = scale_down(pixels, image.max_height)
    levels = check_levels(pixels)
    return Stored(encode(pixels, image), image.format, pixels, levels, as_is=False)


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
    return _decode_jpeg(content) if jpeg.is_jpeg(content) else _decode_other(content)


def check_size(pixels: Bytes8) -> Bytes8:
    """The pixels given; DataError when they are too few to be a B-scan."""
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise DataError(f"is {width}x{height} pixels: a side is below {MIN_SIDE}")
    return pixels


def check_levels(pixels: Bytes8) -> Histogram:
    """The levels of some of the rows; DataError when the whole picture is all of one level, or saturated.

    Where those rows leave a doubt, all pixels are asked.
    """
    levels = count_levels(pixels)
    used = np.flatnonzero(levels)
    if used[-1] - used[0] <= BLANK_RANGE and int(np.ptp(pixels)) <= BLANK_RANGE:
        raise DataError(f"is blank (levels {pixels.min()} to {pixels.max()})")
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
        Image.fromarray(pixels).convert("RGB").save(buffer, "WEBP", lossless=True, quality=0, method=4)
        return buffer.getvalue()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def from_pixels(pixels: Pixels) -> Bytes8:
    """An array of any depth as 8-bit pixels, grey where it is grey."""
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(f"has pixels of shape {pixels.shape}, not (height, width) or (height, width, 3)")
    _check_size(*pixels.shape[:2])
    return drop_colour(pixels.astype(np.uint8) if pixels.dtype == np.bool_ else to_8_bit(pixels))


def to_8_bit(pixels: NDArray[Any]) -> Bytes8:
    """Any depth to 8 bit; DataError where there are values that are not finite."""
    try:
        return scaling.to_8_bit(pixels)
    except ValueError as error:
        raise DataError(str(error)) from error


def drop_colour(pixels: Bytes8) -> Bytes8:
    """(H, W) where R, G and B are the same up to a small tolerance, else the (H, W, 3) it was."""
    if pixels.ndim == 2:
        return pixels
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    if spread.max() > GREY_TOLERANCE:
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L"))


def scale_down(pixels: Bytes8, max_height: int) -> Bytes8:
    """Antialiased to `max_height` at the same ratio where it is taller; never scaled up, 0: never."""
    height, width = pixels.shape[:2]
    if not max_height or height <= max_height:
        return pixels
    size = (max(1, round(width * max_height / height)), max_height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def trim(pixels: Bytes8) -> Bytes8:
    """Without a frame at the edges (frames.py) and the flat rows and columns around it and inside."""
    return np.ascontiguousarray(_without_flat(without_frame(_without_flat(pixels))))


def _without_flat(pixels: Bytes8) -> Bytes8:
    """Without the rows and columns at the edges that span no more than BLANK_RANGE levels."""
    flat = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    rows = np.flatnonzero(np.ptp(flat, axis=1) > BLANK_RANGE)
    columns = np.flatnonzero(np.ptp(flat, axis=0) > BLANK_RANGE)
    if not len(rows) or not len(columns):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DataError(f"is {width}x{height} pixels: more than {MAX_PIXELS:,}")


def _too_tall(height: int, image: PackImage) -> bool:
    return bool(image.max_height) and height > image.max_height


def _decode_jpeg(data: bytes) -> Bytes8:
    height, width, colours = jpeg.header(data)
    _check_size(height, width)
    if colours in ("CMYK", "YCCK"):
        raise DataError(f"is a {colours} JPEG: save it as grey or RGB")
    pixels = jpeg.decode(data, "GRAY" if colours == "Gray" else "RGB")
    grey = pixels[..., 0] if colours == "Gray" else drop_colour(pixels)
    turn = jpeg.orientation(data)
    return grey if turn == 1 else _upright(grey, turn)


def _upright(pixels: Bytes8, turn: int) -> Bytes8:
    """Undo an EXIF orientation (2-8)."""
    image = Image.fromarray(pixels)
    image.getexif()[jpeg.ORIENTATION] = turn
    return np.asarray(ImageOps.exif_transpose(image))


def _decode_other(data: bytes) -> Bytes8:
    """PNG, TIFF, BMP and WebP."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of sizes that _check_size refuses
        try:
            image = Image.open(io.BytesIO(data), formats=["PNG", "TIFF", "BMP", "WEBP"])
        except UnidentifiedImageError:
            raise DataError("is not a JPEG, PNG, TIFF, BMP or WebP image") from None
        except Image.DecompressionBombError:
            raise DataError(f"has more than {MAX_PIXELS:,} pixels") from None
        _check_size(image.height, image.width)
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(f"holds {image.n_frames} pages: save one image a file")  # type: ignore[attr-defined]
        return drop_colour(_to_array(ImageOps.exif_transpose(image)))


def _to_array(image: Image.Image) -> Bytes8:
    """(H, W) or (H, W, 3) 8-bit pixels of any of Pillow's modes; what is transparent turns black."""
    if image.mode.startswith("I") or image.mode == "F":
        return to_8_bit(np.asarray(image))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("RGB"))
