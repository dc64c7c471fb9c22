"""Turns display greys without noise into the picture of a scanner.

Greys become intensities. Speckle (multiplicative), the point spread and the detector's noise are applied.
The logarithm turns them back into greys. Shapes: `H` rows, `W` columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from shards.sources.phantom.eye import STREAM_SCANNER, Floats, keyed_rng

GREY_PER_NEPER = 28.0
"""A display of 256 greys shows some 40 dB of intensity: 255 / ln(10^4)."""
REFERENCE = (256, 700)
"""Height and width at which speckle is described: OCTDL's pictures."""


@dataclass(frozen=True)
class Scanner:
    """The optical properties of one examination."""

    looks: float
    """Number of averaged frames, which reduces the variance of speckle."""
    floor: float
    """Grey where nothing reflects."""
    floor_looks: float
    """The same number for the detector's noise."""
    spread: tuple[float, float]
    """Point spread, standard deviation in reference pixels down and across."""
    gain: float
    """Contrast of the display."""
    gamma: float
    """Curve of the display; above 1 darkens the mid greys."""
    rolloff: float
    """Grey lost from the top of the image to its bottom."""
    vignette: float
    """Grey lost towards the sides."""


def draw_scanner(seed: int, patient: int) -> Scanner:
    """Draws the scanner of one patient: the same device and conditions for both eyes."""
    rng = keyed_rng(seed, STREAM_SCANNER, patient)
    return Scanner(
        looks=rng.uniform(3.0, 8.0),
        floor=float(np.clip(rng.gamma(5.0, 4.2), 10.0, 48.0)),
        floor_looks=rng.uniform(2.5, 8.0),
        spread=(rng.uniform(0.45, 0.62), rng.uniform(0.55, 0.95)),
        gain=rng.uniform(0.97, 1.12),
        gamma=rng.uniform(0.98, 1.18),
        rolloff=rng.uniform(0.0, 14.0),
        vignette=rng.uniform(0.0, 26.0),
    )


def speckle(rng: np.random.Generator, shape: tuple[int, int], looks: float) -> Floats:
    """Draws intensity speckle of mean 1 and variance 1 / looks, shape (H, W)."""
    return rng.standard_gamma(looks, shape, dtype=np.float32) / np.float32(looks)


def blur(image_HW: Floats, scanner: Scanner) -> Floats:
    """Applies the point spread, scaled with the picture, with a sigma of at least 0.4 pixels."""
    for axis in (0, 1):
        sigma = max(scanner.spread[axis] * image_HW.shape[axis] / REFERENCE[axis], 0.4)
        image_HW = gaussian_filter1d(image_HW, sigma, axis=axis, truncate=3.0)
    return image_HW


def expose(grey_HW: Floats, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Applies speckle, blur, detector noise and display to `grey_HW` (H, W), 0 where nothing reflects.

    A pixel of a smaller picture averages more speckle, so the number of looks grows with the pixel's size.
    """
    height, width = grey_HW.shape
    pooled = max(REFERENCE[0] * REFERENCE[1] / (height * width), 1.0) ** 0.9
    down_H1 = np.linspace(0.0, scanner.rolloff, height, dtype=np.float32)[:, None]
    side_W = np.linspace(-1.0, 1.0, width, dtype=np.float32) ** 2 * np.float32(scanner.vignette)
    # On intensities, because light adds up as intensity. On display greys speckle would look like film grain.
    signal_HW = np.expm1(np.maximum(grey_HW - down_H1 - side_W, 0.0) / GREY_PER_NEPER)
    signal_HW = signal_HW * speckle(rng, (height, width), scanner.looks * pooled)
    noise_HW = speckle(rng, (height, width), scanner.floor_looks * pooled)
    total_HW = blur(signal_HW + noise_HW * math.expm1(scanner.floor / GREY_PER_NEPER), scanner)
    shown_HW = GREY_PER_NEPER * np.log1p(total_HW)
    shown_HW = 255.0 * (scanner.gain * np.maximum(shown_HW, 0.0) / 255.0) ** scanner.gamma
    return np.clip(shown_HW + 0.5, 0.0, 255.0).astype(np.uint8)
