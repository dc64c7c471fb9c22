"""Random resized crop, flip and mask noise. They depend on (seed, epoch, sample) and on nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from retfound_dist.stream.batch_plan import sample_generator

Pixels = NDArray[np.uint8]
# The purpose in the generator's key; 1 and 2 are for the order of shards and windows (`batch_plan`). With
# another number a resumed run would get other crops.
_AUGMENT = 3
# As in torchvision's RandomResizedCrop.
_ATTEMPTS = 10


@dataclass(frozen=True)
class Augment:
    """Settings of the augmentation, the same for the whole run."""

    size: tuple[int, int]
    """Height and width of the result in pixels."""
    patches: int
    """Number of mask noise values of an image."""
    scale: tuple[float, float]
    """Smallest and largest area of the crop, as a fraction of the image."""
    ratio: tuple[float, float]
    """Smallest and largest aspect ratio of the crop: width / height."""
    flip: float
    """Probability of a horizontal flip."""


@dataclass(frozen=True)
class Draw:
    """The augmentation of one image: the crop in pixels, and whether it is flipped."""

    left: int
    top: int
    width: int
    height: int
    flipped: bool


def draw_augmentation(
    augment: Augment,
    seed: int,
    epoch: int,
    sample: int,
    width: int,
    height: int,
    noise: NDArray[np.float32],
) -> Draw:
    """Draw crop and flip for an image of `width` x `height`; mask noise is written into `noise` (L,) fp32."""
    # Do not change the order of these draws: a resumed run must get the same crops and masks.
    numbers = sample_generator(seed, _AUGMENT, epoch, sample)
    box = crop_box(numbers, width, height, augment.scale, augment.ratio)
    flipped = numbers.random() < augment.flip
    numbers.random(out=noise, dtype=np.float32)
    return Draw(*box, flipped)


def apply_augmentation(draw: Draw, pixels: Pixels, out: Pixels) -> None:
    """Crop, flip and resize (H, W) or (H, W, 3) into `out` (C, h, w) uint8. Only reads pixels of the crop."""
    # Flipped before resizing: a reversed view costs nothing here, because `resize` copies its input anyway.
    crop = pixels[draw.top : draw.top + draw.height, draw.left : draw.left + draw.width]
    out[...] = resize(crop[:, ::-1] if draw.flipped else crop, (out.shape[1], out.shape[2]))


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize (H, W) or (H, W, 3) to (C, h, w) by antialiased bicubic interpolation; `size` is (h, w).

    The filter and the order of its two passes are Pillow's (13): first horizontal, then vertical. If the
    height shrinks by more than twice as many pixels as the width, the vertical pass is first. The results
    agree to more than 60 dB.
    """
    # One call for each direction, because a single call always does the horizontal pass first (torch 2.15).
    (height, width), (h, w) = pixels.shape[:2], size
    vertical_first = height > h and height - h > 2 * (width - w)
    if pixels.ndim == 3:
        colours = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
        half = _interpolate(colours, h, width) if vertical_first else _interpolate(colours, height, w)
        resized: Pixels = _interpolate(half, h, w)[0].numpy()
        return resized
    if vertical_first:
        return _resize_horizontally(_resize_vertically(pixels, h), w)[None]
    return _resize_vertically(_resize_horizontally(pixels, w), h)[None]


def _resize_horizontally(pixels: Pixels, size: int) -> Pixels:
    """Resize grey (H, W) to (H, size), with each four neighbouring rows as the four channels of one row.

    This is for speed: torch has a vectorized loop only for images with several channels.
    """
    height, width = pixels.shape
    groups = -(-height // 4)
    # The last group may have fewer than four rows. The others of it are cut off from the result.
    rows_as_channels = np.empty((groups, width, 4), np.uint8)
    for channel in range(4):
        rows = pixels[channel::4]
        rows_as_channels[: len(rows), :, channel] = rows
    images = torch.from_numpy(rows_as_channels)[None].permute(0, 3, 1, 2)
    resized = _interpolate(images, groups, size)
    all_rows: Pixels = resized.permute(0, 2, 1, 3).reshape(-1, size).numpy()
    return all_rows[:height]


def _resize_vertically(pixels: Pixels, size: int) -> Pixels:
    """Resize grey (H, W) to (size, W), with each four neighbouring columns as the channels of one column."""
    height, width = pixels.shape
    groups = -(-width // 4)
    if width % 4:
        padded = np.empty((height, 4 * groups), np.uint8)
        padded[:, :width] = pixels
        pixels = padded
    images = torch.from_numpy(np.ascontiguousarray(pixels)).view(1, height, groups, 4).permute(0, 3, 1, 2)
    resized = _interpolate(images, size, groups)
    all_columns: Pixels = resized.permute(0, 2, 3, 1).reshape(size, -1).numpy()
    return all_columns[:, :width]


def _interpolate(images: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, H, W) to (B, C, height, width)."""
    return functional.interpolate(images, size=(height, width), mode="bicubic", antialias=True)


def crop_box(
    generator: np.random.Generator,
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """(left, top, width, height) as in torchvision's RandomResizedCrop: ten attempts, then the centre."""
    # All numbers at once, also those of attempts that are not needed: so flip and mask noise do not depend
    # on the number of attempts.
    numbers = iter(generator.random(4 * _ATTEMPTS).tolist())
    (low, high), (narrow, wide) = scale, (math.log(ratio[0]), math.log(ratio[1]))
    for area_share, aspect_share, x_share, y_share in zip(numbers, numbers, numbers, numbers, strict=True):
        area = width * height * (low + (high - low) * area_share)
        aspect = math.exp(narrow + (wide - narrow) * aspect_share)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(x_share * (width - w + 1)), int(y_share * (height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h
