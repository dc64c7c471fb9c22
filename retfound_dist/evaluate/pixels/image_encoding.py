"""Encodes pictures as text: for pictures.json, and as data URIs for a page.

Shapes: S side, G patches along a side.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.scores.metrics import Floats

WEBP_QUALITY = 82
"""0-100. An OCT image of 224 x 224 takes about 6 kB."""
_DIGITS = 4
_MAX_OPACITY = 0.75
"""Opacity of the hottest patch."""


def encode_picture(pixels: NDArray[np.uint8]) -> str:
    """Grey (H, W) or colour (H, W, 3) as base64 of a WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=WEBP_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def decode_picture(text: str) -> Pixels:
    """Decodes the result of `encode_picture` to grey (H, W)."""
    # WebP has no grey images: the file is decoded in colour.
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))


def data_uri(text: str) -> str:
    """The data URI of a picture that `encode_picture` encoded."""
    return f"data:image/webp;base64,{text}"


def round_heat_map(heat_GG: Floats) -> list[list[float]]:
    """A heat map for JSON, with four significant digits."""
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in heat_GG]


def overlay(pixels_SS: Pixels, heat_GG: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """The heat map over the image (S, S, 3): transparent at its lowest value, yellow at its highest.

    Brightness rises with the value (inferno), so the map can be read without colour vision.
    """
    heat = np.asarray(heat_GG, np.float32)
    low, high = float(heat.min()), float(heat.max())
    scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    height, width = pixels_SS.shape
    # Bicubic interpolation overshoots beside a peak: without clip, bright pixels would wrap around 255.
    smooth = np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    heat_colours = matplotlib.colormaps["inferno"](smooth)[..., :3] * 255
    opacity = _MAX_OPACITY * smooth[..., None]
    mixed = (1 - opacity) * pixels_SS[..., None] + opacity * heat_colours
    overlaid: NDArray[np.uint8] = mixed.round().astype(np.uint8)
    return overlaid
