"""Thin bright lines along the edges of a picture: the frame of a viewer's window, cut out with the scan.

A tenth of OCTDL's images has some, and a third of OCT2017's. The median level of a line says it: a
frame's is high and falls within a few lines, which neither tissue nor the white wedges of turned scans do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGE, NEAR = 4, 3
"""Lines at an edge in which a frame may lie, and lines behind it in which it has to end."""
BRIGHT, STEP = 100, 60
"""Level of a frame's line, and by how much what is behind it is darker."""
LEFT_OVER = 0.2
"""Share of that step from which on a line still belongs to the frame (scaling blurs it)."""


def frame_of(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Width in pixels of a frame at top, bottom, left and right; 0 for none. Takes (H, W) or (H, W, 3)."""
    flat = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    return _lines(flat), _lines(flat[::-1]), _lines(flat.T), _lines(flat.T[::-1])


def without_frame(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels inside the frame."""
    top, bottom, left, right = frame_of(pixels)
    height, width = pixels.shape[:2]
    return pixels[top : height - bottom, left : width - right]


def _lines(flat_HW: NDArray[np.uint8]) -> int:
    """Rows that a frame takes at the top."""
    # The median: a frame fills its line, the white wedge of a turned scan only a part of it.
    levels = np.median(flat_HW[: EDGE + NEAR], axis=1)
    peak = int(levels[:EDGE].argmax())
    behind = levels[peak + 1 : peak + 1 + NEAR]
    if not len(behind) or levels[peak] < BRIGHT or levels[peak] - behind.min() < STEP:
        return 0
    ends = behind.min() + LEFT_OVER * (levels[peak] - behind.min())
    return peak + 1 + int(np.argmax(behind <= ends))
