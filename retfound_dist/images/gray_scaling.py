"""Scales 16-bit and floating-point scans to 8 bit. All readers use this one rule.

Each image is scaled by itself. 0 becomes 0 (where there are negative values, the lowest one does). The 99.9th
percentile of the pixels becomes 255, and values above it are clipped. Devices use anything from 10 to 16 bits
of their samples and leave some saturated pixels, so neither 65,535 nor the maximum can be the upper end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE_PERCENTILE = 99.9


def to_8_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of any shape as 8 bit (see the top of the file); 8 bit is unchanged. ValueError: not finite."""
    if pixels.dtype == np.uint8:
        return pixels
    # A double that is too large for a float becomes infinite, and is refused below.
    with np.errstate(over="ignore"):
        values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite numbers")
    low = min(float(values.min()), 0.0)
    high = float(np.percentile(values, SCALE_PERCENTILE))
    # An almost black picture: fewer than 0.1 % of its pixels are not 0.
    if high <= low:
        high = float(values.max())
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    # Values far above the percentile may overflow; they are clipped to white.
    with np.errstate(over="ignore"):
        shown = np.clip((values - low) * (255.0 / (high - low)) + 0.5, 0, 255)
    scaled: NDArray[np.uint8] = shown.astype(np.uint8)
    return scaled
