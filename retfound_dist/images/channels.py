"""Turns the samples of a file into 8-bit pixels: alpha, inversion, depth, orientation, colour.

Shapes: H W pixels of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.errors import ImageError
from retfound_dist.images.gray_scaling import to_8_bit

Pixels = NDArray[np.uint8]
Samples = NDArray[Any]
MAX_PIXELS = 50_000_000
"""Images with more pixels are refused as decompression bombs."""
# Chosen so that chroma noise of JPEGs, arrows and logos leave a scan grey, and a fundus photograph stays
# colour: tests/images/test_channels.py holds both sides.
GREY_TOLERANCE = 16
"""Largest difference between R, G and B of a grey pixel, in levels. JPEG's chroma noise stays below."""
COLOUR_SHARE = 0.02
"""A picture is colour if more than this share of its pixels are. Coloured marks take less, tissue more."""
# Depths that devices use. A file of 16-bit samples seldom says how many of its bits it uses.
_DEVICE_DEPTHS = (8, 10, 12, 14, 16, 24, 32, 64)


def check_pixel_count(height: int, width: int) -> None:
    """ImageError where a header gives no pixels, or more than any B-scan has. Call it before decoding."""
    if min(height, width) < 1:
        raise ImageError(f"is {width}x{height} pixels")
    if height * width > MAX_PIXELS:
        raise ImageError(f"is {width}x{height} pixels: more than {MAX_PIXELS:,}")


def scale_to_8_bit(values: Samples, bits: int = 0) -> Pixels:
    """Scale samples of any depth to 8 bits. ImageError where values are not finite or complex.

    `bits`: the depth of samples of fewer than 8 bits, of which the largest possible value becomes 255.
    """
    if values.dtype == np.bool_:
        return np.where(values, 255, 0).astype(np.uint8)
    check_numbers(values)
    if values.dtype == np.uint8 and 0 < bits < 8:
        stretched: Pixels = np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
        return stretched
    try:
        return to_8_bit(values)
    except ValueError as error:
        raise ImageError(str(error)) from error


def check_numbers(values: Samples) -> None:
    """ImageError where samples are not integers or real numbers."""
    if values.dtype.kind not in "buif":
        raise ImageError(f"has samples of type {values.dtype}: save it as 8 or 16 bit")


def invert(values: Samples, bits: int = 0) -> Samples:
    """Invert samples with white at 0, so that black is 0. `bits`: depth in use, 0 where the file does not
    say."""
    # The depth in use counts, not the type: a 12-bit scan in 16-bit samples that is inverted about 65,535
    # would be white all over.
    if values.dtype == np.bool_:
        return ~values
    if values.dtype.kind == "f":
        # TIFF defines no white for floats. Values within 0 to 1 are shares of white by custom.
        top = 1.0 if values.size and values.min() >= 0 and values.max() <= 1 else values.max(initial=0)
        return np.asarray(top - values)
    if values.dtype.kind == "i":
        # -1 - v maps the lowest value to the highest; `-v` would overflow at the lowest.
        return np.invert(values)
    if not bits:
        highest = int(values.max(initial=0))
        bits = next(depth for depth in _DEVICE_DEPTHS if highest < 2**depth)
    return np.asarray(values.dtype.type(2**bits - 1) - values)


def blend_over_black(values: Samples, alpha: Samples) -> Samples:
    """Samples (H, W) or (H, W, 3) over a black background; alpha (H, W): unsigned integers, or 0 to 1."""
    # Over white, the transparent area around a scan would look like its brightest tissue.
    if not alpha.any():
        raise ImageError("is fully transparent: save it without its alpha channel")
    opaque = 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)
    if (alpha == opaque).all():
        return values
    share = alpha.astype(np.float64) / opaque
    shown = values * (share if values.ndim == 2 else share[..., None])
    return shown if values.dtype.kind == "f" else np.round(shown).astype(values.dtype)


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF or TIFF orientation: 1 is upright, 2-8 turned or mirrored, others count as upright."""
    # First transpose, then mirror: with this order each of the eight values is at most three steps.
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def drop_colour(pixels: Pixels) -> Pixels:
    """(H, W) where all but a small share of the pixels are grey, else the same (H, W, 3)."""
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    off_grey = np.count_nonzero(spread > GREY_TOLERANCE)
    return pixels if off_grey > COLOUR_SHARE * spread.size else to_grey(pixels)


def to_grey(pixels: Pixels) -> Pixels:
    """(H, W): the luminance (ITU-R 601-2) of colour; grey unchanged."""
    if pixels.ndim == 2:
        return pixels
    # Pillow's integer arithmetic, as in `image_digests`: digests of packed and of source pixels must agree.
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))


def to_rgb(pixels: Pixels) -> Pixels:
    """(H, W, 3): grey repeated, colour unchanged."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
