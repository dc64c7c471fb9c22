"""Image file to grey pixels of the size that fine-tuning needs.

Shapes: H W pixels of an image, S the side of the network's input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.estimate.model_shapes import TEST_RESIZE as TEST_RESIZE
from retfound_dist.images import decoding

Pixels = NDArray[np.uint8]
TRAIN_RESIZE = 2.0
"""Training keeps more, so that a random crop of a quarter of the image is still sharp."""


def decode_grey(data: bytes) -> Pixels:
    """(H, W) of an image file as `images.decoding` says; ImageError says what is wrong with it."""
    return decoding.check_sides(decoding.decode_grey(data))


def for_training(pixels_HW: Pixels, side: int) -> Pixels:
    """At most `TRAIN_RESIZE` x side at the shorter side; never scaled up."""
    shorter = round(TRAIN_RESIZE * side)
    return pixels_HW if min(pixels_HW.shape) <= shorter else _resize_shorter(pixels_HW, shorter)


def for_testing(pixels_HW: Pixels, side: int | tuple[int, int]) -> Pixels:
    """(S, S): shorter side to 256/224 S, bicubic, then the centre (RETFound).

    Given height and width, as small as both can be cut out with the same margin.
    """
    h, w = side if isinstance(side, tuple) else (side, side)
    height, width = pixels_HW.shape
    shorter = TEST_RESIZE * max(h / height, w / width) * min(height, width)
    pixels_HW = _resize_shorter(pixels_HW, round(shorter))
    top, left = (round((resized - cut) / 2) for resized, cut in zip(pixels_HW.shape, (h, w), strict=True))
    # A copy, because a view would keep the whole resized image in memory.
    return np.ascontiguousarray(pixels_HW[top : top + h, left : left + w])


def _resize_shorter(pixels_HW: Pixels, shorter: int) -> Pixels:
    height, width = pixels_HW.shape
    factor = shorter / min(height, width)
    size = (max(shorter, round(width * factor)), max(shorter, round(height * factor)))
    # Pillow widens the filter when it makes an image smaller (antialiasing), as the recipe wants.
    return np.asarray(Image.fromarray(pixels_HW).resize(size, Image.Resampling.BICUBIC))
