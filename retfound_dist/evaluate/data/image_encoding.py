"""Encodes pictures as text: for pictures.json, and as the data URIs that a page shows.

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

from retfound_dist.evaluate.data.gray_pixels import Pixels
from retfound_dist.evaluate.scores.metrics import Floats

QUALITY = 82
"""WebP's, 0-100: an OCT image of 224 x 224 takes some 6 kB."""
_DIGITS = 4
_STRENGTH = 0.75
"""Opacity of the hottest patch."""


def picture_text(pixels: NDArray[np.uint8]) -> str:
    """Grey (H, W) or colour (H, W, 3) as base64 of a WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def read_picture(text: str) -> Pixels:
    """Decodes the result of `picture_text` to grey (H, W)."""
    # WebP knows no grey images: the file comes back in colour.
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))


def data_uri(text: str) -> str:
    """The data URI of a picture that `picture_text` encoded."""
    return f"data:image/webp;base64,{text}"


def heat_text(heat_GG: Floats) -> list[list[float]]:
    """A map for JSON, four significant digits."""
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in heat_GG]


def overlay(pixels_SS: Pixels, heat_GG: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """The map over the image (S, S, 3): clear where coldest, yellow where hottest, scaled within it.

    The colours (inferno) rise in brightness, so they read the same without colour vision.
    """
    heat = np.asarray(heat_GG, np.float32)
    low, high = float(heat.min()), float(heat.max())
    scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    height, width = pixels_SS.shape
    # Bicubic interpolation overshoots beside a peak: unclipped, bright pixels would pass 255 and turn black.
    smooth = np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    hot = matplotlib.colormaps["inferno"](smooth)[..., :3] * 255
    share = _STRENGTH * smooth[..., None]
    mixed: NDArray[np.uint8] = ((1 - share) * pixels_SS[..., None] + share * hot).round().astype(np.uint8)
    return mixed
