"""Random resized crop, flip and mask noise, drawn from (seed, epoch, sample) and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.stream.plan import generator

Pixels = NDArray[np.uint8]
_AUGMENT = 3
_TRIES = 10


@dataclass(frozen=True)
class Augment:
    """What is done to each image."""

    image_size: int
    """Side of the result in pixels."""
    patches: int
    """Mask noise values an image."""
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float


def augment(
    pixels: Pixels,
    how: Augment,
    seed: int,
    epoch: int,
    sample: int,
    out: Pixels,
    noise: NDArray[np.float32],
) -> None:
    """(H, W) or (H, W, 3) into `out` (C, S, S) uint8, and mask noise into `noise` (L,) fp32.

    The crop is resized by antialiased bicubic interpolation, from the pixels inside it alone.
    """
    draw = generator(seed, _AUGMENT, epoch, sample)
    left, top, width, height = crop_box(draw, pixels.shape[1], pixels.shape[0], how.scale, how.ratio)
    flipped = draw.random() < how.flip
    draw.random(out=noise, dtype=np.float32)
    cut = Image.fromarray(pixels[top : top + height, left : left + width])
    small = np.asarray(cut.resize((how.image_size, how.image_size), Image.Resampling.BICUBIC))
    if flipped:
        small = small[:, ::-1]
    out[...] = small[None] if small.ndim == 2 else small.transpose(2, 0, 1)


def crop_box(
    draw: np.random.Generator, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of torchvision's RandomResizedCrop: ten tries, then the centre."""
    areas = width * height * draw.uniform(*scale, size=_TRIES)
    aspects = np.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1]), size=_TRIES))
    corners = draw.random((_TRIES, 2))
    widths, heights = (
        np.rint(np.sqrt(areas * aspects)).astype(int),
        np.rint(np.sqrt(areas / aspects)).astype(int),
    )
    fits = np.flatnonzero((widths > 0) & (widths <= width) & (heights > 0) & (heights <= height))
    if len(fits):
        i = fits[0]
        w, h = int(widths[i]), int(heights[i])
        return int(corners[i, 0] * (width - w + 1)), int(corners[i, 1] * (height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h
