"""Any depth of grey to 8 bit: how 16-bit and floating-point scans are scaled, in one place.

Images are scaled one by one: 0 stays 0 (the lowest value does where there are negative ones), the
99.9th percentile of the pixels becomes 255, what lies above is clipped. Device exports use anything
from 10 to 16 of their bits and some saturated specks, so neither 65,535 nor the maximum would do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE_PERCENTILE = 99.9


def to_8_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scaled as this module's docstring says, any shape; 8 bit stays as it is. ValueError: not finite."""
    if pixels.dtype == np.uint8:
        return pixels
    with np.errstate(over="ignore"):  # a double that is too large is not finite either
        values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite numbers")
    low = min(float(values.min()), 0.0)
    high = float(np.percentile(values, SCALE_PERCENTILE))
    if high <= low:
        high = float(values.max())
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    with np.errstate(over="ignore"):  # far above the percentile: clipped
        shown = np.clip((values - low) * (255.0 / (high - low)) + 0.5, 0, 255)
    scaled: NDArray[np.uint8] = shown.astype(np.uint8)
    return scaled
