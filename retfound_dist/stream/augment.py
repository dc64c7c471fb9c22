"""Random resized crop, flip and mask noise, drawn from (seed, epoch, sample) and nothing else."""

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
_AUGMENT = 3
_TRIES = 10


@dataclass(frozen=True)
class Augment:
    """What is done to each image."""

    size: tuple[int, int]
    """Height and width of the result in pixels."""
    patches: int
    """Mask noise values an image."""
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float


@dataclass(frozen=True)
class Draw:
    """What is done to one image: the crop in pixels, and whether it is flipped."""

    left: int
    top: int
    width: int
    height: int
    flipped: bool


def draw(
    how: Augment, seed: int, epoch: int, sample: int, width: int, height: int, noise: NDArray[np.float32]
) -> Draw:
    """For an image of `width` x `height`; mask noise goes into `noise` (L,) fp32."""
    numbers = sample_generator(seed, _AUGMENT, epoch, sample)
    box = crop_box(numbers, width, height, how.scale, how.ratio)
    flipped = numbers.random() < how.flip
    numbers.random(out=noise, dtype=np.float32)
    return Draw(*box, flipped)


def apply(drawn: Draw, pixels: Pixels, out: Pixels) -> None:
    """(H, W) or (H, W, 3) into `out` (C, h, w) uint8: cut, flip, resize from the pixels inside alone."""
    cut = pixels[drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
    out[...] = resize(cut[:, ::-1] if drawn.flipped else cut, (out.shape[1], out.shape[2]))


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W) or (H, W, 3) to (C, h, w), h and w given by `size`, by antialiased bicubic interpolation.

    Pillow's filter, in the order of Pillow 13: across and then down, but down first where the height
    shrinks by more than twice as many pixels as the width. More than 60 dB of agreement.
    """
    (height, width), (h, w) = pixels.shape[:2], size
    down_first = height > h and height - h > 2 * (width - w)
    if pixels.ndim == 3:
        colours = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
        half = _antialiased(colours, h, width) if down_first else _antialiased(colours, height, w)
        whole: Pixels = _antialiased(half, h, w)[0].numpy()
        return whole
    if down_first:
        return _across(_down(pixels, h), w)[None]
    return _down(_across(pixels, w), h)[None]


def _across(pixels: Pixels, size: int) -> Pixels:
    """(H, W) to (H, size). torch has a vector loop for colours alone: four rows pass for those of a pixel."""
    height, width = pixels.shape
    rows = np.empty((-(-height // 4), width, 4), np.uint8)
    for row in range(4):
        part = pixels[row::4]
        rows[: len(part), :, row] = part
    done = _antialiased(torch.from_numpy(rows)[None].permute(0, 3, 1, 2), len(rows), size)
    lines: Pixels = done.permute(0, 2, 1, 3).reshape(-1, size).numpy()[:height]
    return lines


def _down(pixels: Pixels, size: int) -> Pixels:
    """(H, W) to (size, W): four neighbouring columns pass for the colours of a pixel."""
    height, width = pixels.shape
    fours = -(-width // 4)
    if width % 4:
        padded = np.empty((height, 4 * fours), np.uint8)
        padded[:, :width] = pixels
        pixels = padded
    columns = torch.from_numpy(np.ascontiguousarray(pixels)).view(1, height, fours, 4).permute(0, 3, 1, 2)
    done = _antialiased(columns, size, fours)
    lines: Pixels = done.permute(0, 2, 3, 1).reshape(size, -1).numpy()[:, :width]
    return lines


def _antialiased(images: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(images, size=(height, width), mode="bicubic", antialias=True)


def crop_box(
    draw: np.random.Generator, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of torchvision's RandomResizedCrop: ten tries, then the centre."""
    numbers = iter(draw.random(4 * _TRIES).tolist())
    (low, high), (narrow, wide) = scale, (math.log(ratio[0]), math.log(ratio[1]))
    for share, shape, across, down in zip(numbers, numbers, numbers, numbers, strict=True):
        area = width * height * (low + (high - low) * share)
        aspect = math.exp(narrow + (wide - narrow) * shape)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h
