"""Finds thin bright lines along the edges of a picture: the frame of a viewer's window, copied with the scan.

A tenth of the images of OCTDL has some, and a third of OCT2017. The median level of a frame's line is high
and falls within a few lines. Neither tissue nor the white corners of rotated scans do that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGE_LINES, NEAR_LINES = 4, 3
"""A frame lies within so many lines of an edge, and ends within so many lines after it."""
BRIGHT, STEP = 100, 60
"""Lowest level of a frame's line, and how much darker the lines after it are."""
BLURRED_SHARE = 0.2
"""Lines above this share of the step still belong to the frame, because scaling blurs it."""


def frame_of(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Returns the frame's width at top, bottom, left and right of (H, W) or (H, W, 3) pixels; 0 for none."""
    flat = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    return _frame_lines(flat), _frame_lines(flat[::-1]), _frame_lines(flat.T), _frame_lines(flat.T[::-1])


def without_frame(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the pixels inside the frame."""
    top, bottom, left, right = frame_of(pixels)
    height, width = pixels.shape[:2]
    return pixels[top : height - bottom, left : width - right]


def _frame_lines(flat_HW: NDArray[np.uint8]) -> int:
    """Returns the number of rows that a frame takes at the top."""
    # The median, because a frame fills its line and the white corner of a rotated scan only a part of it.
    levels = np.median(flat_HW[: EDGE_LINES + NEAR_LINES], axis=1)
    peak = int(levels[:EDGE_LINES].argmax())
    behind = levels[peak + 1 : peak + 1 + NEAR_LINES]
    if not len(behind) or levels[peak] < BRIGHT or levels[peak] - behind.min() < STEP:
        return 0
    end_level = behind.min() + BLURRED_SHARE * (levels[peak] - behind.min())
    return peak + 1 + int(np.argmax(behind <= end_level))
