"""Decodes image files to 8-bit pixels, for pack, stream, evaluate, embed and reconstruct alike.

    pixels = decode(data)           (H, W) where the picture is grey, else (H, W, 3)
    pixels = decode_grey(data)      (H, W), colour turned to its luminance

The content decides, not the file's name. A file that cannot be read correctly is an ImageError with the
reason.

    formats        JPEG, PNG, TIFF and BigTIFF, BMP, WebP, GIF, JPEG 2000, PBM/PGM/PPM
    depth          8 bit as it is; 1, 2 and 4 bit stretched; more, signed and floating point as
                   `retfound_dist.images.gray_scaling` says, by one scale for all channels of an image
    MinIsWhite     inverted about the largest value of the depth in use (8, 10, 12, 14, 16 ... bit); floats
                   about 1, or about their largest value
    colour         grey unless more than COLOUR_SHARE of the pixels are more than GREY_TOLERANCE levels
                   away from grey
    alpha          laid over black; ignored where the file does not say what it is; refused where it
                   leaves nothing
    palette        through its table, with its transparency
    orientation    EXIF's or TIFF's is applied, all eight
    pages          more than one are refused, in every format
    refused too    print colours (CMYK), CIE Lab and JPEGs of more than 8 bit: there is no single right way
                   to grey; truncated and damaged files (JPEGs are decoded strictly: Pillow would fill the
                   gap with grey)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import ImageError
from retfound_dist.images import jpeg, raster, tiff
from retfound_dist.images.channels import (
    COLOUR_SHARE,
    GREY_TOLERANCE,
    MAX_PIXELS,
    apply_orientation,
    check_pixel_count,
    drop_colour,
    to_grey,
    to_rgb,
)

__all__ = [
    "COLOUR_SHARE",
    "GREY_TOLERANCE",
    "MAX_PIXELS",
    "MIN_SIDE",
    "ImageError",
    "check_pixel_count",
    "check_sides",
    "decode",
    "decode_colour",
    "decode_grey",
    "decode_stored",
    "drop_colour",
]

Pixels = NDArray[np.uint8]
MIN_SIDE = 32
"""Pixels; nothing smaller is a B-scan."""


def decode(data: bytes) -> Pixels:
    """(H, W) for a grey picture, (H, W, 3) for a colour one. ImageError."""
    return drop_colour(decode_stored(data))


def decode_grey(data: bytes) -> Pixels:
    """(H, W): the luminance of the result of `decode`. ImageError."""
    return to_grey(decode_stored(data))


def decode_colour(data: bytes) -> Pixels:
    """(H, W, 3); grey is repeated. ImageError."""
    return to_rgb(decode_stored(data))


def check_sides(pixels: Pixels) -> Pixels:
    """The same pixels; ImageError where a side is too short for a B-scan."""
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"is {width}x{height} pixels: a side is below {MIN_SIDE}")
    return pixels


def decode_stored(data: bytes) -> Pixels:
    """Upright 8-bit pixels in as many channels (1 or 3) as the file has."""
    # JPEG and TIFF have readers of their own: Pillow reads damaged JPEGs without an error and misreads deep
    # TIFFs.
    if jpeg.is_jpeg(data):
        return _decode_jpeg(data)
    return tiff.decode(data) if tiff.is_tiff(data) else raster.decode(data)


def _decode_jpeg(data: bytes) -> Pixels:
    height, width, colours = jpeg.header(data)
    # Before decoding: a JPEG of some kilobytes may ask for gigabytes of pixels.
    check_pixel_count(height, width)
    if colours in ("CMYK", "YCCK"):
        raise ImageError(f"is a {colours} JPEG (print colours): save it as grey or RGB")
    pixels = jpeg.decode(data, "GRAY" if colours == "Gray" else "RGB")
    return apply_orientation(pixels[..., 0] if colours == "Gray" else pixels, jpeg.orientation(data))
