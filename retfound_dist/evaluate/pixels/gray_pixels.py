"""Decodes an image file to grey pixels of the size that fine-tuning needs.

Shapes: H W pixels of an image, S the side of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.errors import DataError, StorageError
from retfound_dist.estimate.model_shapes import TEST_RESIZE as TEST_RESIZE
from retfound_dist.images import decoding

Pixels = NDArray[np.uint8]
BICUBIC = "bicubic"
"""RETFound's filter. Other encoders name their own (`Preparation.interpolation`)."""
TRAIN_RESIZE = 2.0
"""Training images stay this much larger, so that a random crop of a quarter of the image is still sharp."""


def decode_grey(data: bytes) -> Pixels:
    """(H, W) of an image file, decoded by `images.decoding`; ImageError where it cannot be decoded."""
    return decoding.check_sides(decoding.decode_grey(data))


def resize_for_training(pixels_HW: Pixels, side: int, interpolation: str = BICUBIC) -> Pixels:
    """The shorter side is at most `TRAIN_RESIZE` x side; a smaller image is not scaled up."""
    shorter = round(TRAIN_RESIZE * side)
    if min(pixels_HW.shape) <= shorter:
        return pixels_HW
    return _resize_shorter(pixels_HW, shorter, interpolation)


def resize_for_testing(
    pixels_HW: Pixels, side: int | tuple[int, int], interpolation: str = BICUBIC
) -> Pixels:
    """(S, S): shorter side to 256/224 S, then a centre crop (RETFound).

    `side` may be (height, width): then the image gets the smallest size with that margin on both axes.
    """
    crop_height, crop_width = side if isinstance(side, tuple) else (side, side)
    height, width = pixels_HW.shape
    shorter = TEST_RESIZE * max(crop_height / height, crop_width / width) * min(height, width)
    pixels_HW = _resize_shorter(pixels_HW, round(shorter), interpolation)
    top, left = round((pixels_HW.shape[0] - crop_height) / 2), round((pixels_HW.shape[1] - crop_width) / 2)
    # A copy, because a view would keep the whole resized image in memory.
    return np.ascontiguousarray(pixels_HW[top : top + crop_height, left : left + crop_width])


def pixels_or_reason(read_HW: Callable[[], Pixels], side: int, interpolation: str) -> Pixels | str:
    """(S, S) as `resize_for_testing` gives it, or in one line why the image cannot be read."""
    try:
        return resize_for_testing(read_HW(), side, interpolation)
    except (ValueError, OSError, StorageError, DataError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


def _resize_shorter(pixels_HW: Pixels, shorter: int, interpolation: str) -> Pixels:
    height, width = pixels_HW.shape
    factor = shorter / min(height, width)
    size = (max(shorter, round(width * factor)), max(shorter, round(height * factor)))
    # Pillow widens the filter when it makes an image smaller (antialiasing), as RETFound's recipe does.
    return np.asarray(Image.fromarray(pixels_HW).resize(size, Image.Resampling[interpolation.upper()]))
