"""Finds pictures that look alike. Equal pictures have equal digests (`images.image_digests`).

The look of a picture is a difference hash. The picture is reduced to 17x16 averages; each pair of
neighbours gives one bit (256 bits). Copies that were re-encoded or scaled differ in a few bits, other
eyes in about ninety. All sums are of whole numbers, so every machine finds the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOOK_BYTES, LOOK_ROWS, LOOK_COLUMNS = 32, 16, 17
FINE = 16
"""Parts of a pixel to which the borders of the averages are cut."""
TALL = 8192
"""Of a taller picture only every second (third ...) row is looked at: sums stay exact in 32-bit floats."""
ALIKE_BITS = 7
"""Looks that differ in no more bits are near duplicates. Of 200 images of OCTDL, 95 % of the copies at
three quarters of the size and JPEG quality 70 differ in 6 bits or fewer; images of other patients in 91."""
MARGIN = 2
"""Levels by which a neighbour must be brighter: speckle in the dark does not count."""
CROWD = 200
"""Where more pictures share a stretch of their look (dark frames), so many neighbours are compared."""


def difference_hash(pixels: NDArray[np.uint8]) -> bytes:
    """The 256-bit difference hash of (H, W) or (H, W, 3) pixels."""
    grey = pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
    fours = _sums_of_four(grey[:: 1 + grey.shape[0] // TALL])
    down, heights = _boxes(fours.shape[0], LOOK_ROWS)
    across, widths = _boxes(fours.shape[1], LOOK_COLUMNS)
    # BLAS multiplies floats alone. These sums stay below 2^24, so 32-bit floats hold them exactly,
    # and every machine finds the same bits whatever order its BLAS adds in.
    sums = (down @ fours.astype(np.float32)).astype(np.float64) @ across.T.astype(np.float64)
    means = sums / (4.0 * np.outer(heights, widths))
    return np.packbits(means[:, 1:] > means[:, :-1] + MARGIN).tobytes()


def _sums_of_four(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(H // 2, W // 2): the sum of each square of four pixels, two bytes added at a time."""
    height, width = pixels.shape
    words = np.ascontiguousarray(pixels[: height - height % 2, : width - width % 2]).view(np.uint16)
    twos = words >> 8
    twos += words & 0xFF
    fours: NDArray[np.uint16] = twos[0::2] + twos[1::2]
    return fours


@lru_cache(maxsize=512)
def _boxes(size: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(count, size) whole numbers of 0 to FINE: how much of each pixel lies in each of equal boxes.

    And (count,) the sum of each row.
    """
    edges = np.arange(count + 1) * (size * FINE) // count
    start = np.arange(size)[None] * FINE
    overlap = np.minimum(start + FINE, edges[1:, None]) - np.maximum(start, edges[:-1, None])
    boxes = np.maximum(overlap, 0)
    return boxes.astype(np.float32), boxes.sum(axis=1).astype(np.float64)


def near_pairs(looks: bytes, group: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(place, place, bits that differ) of alike pictures of different groups, each pair once.

    Two looks that differ in 7 bits agree in one of eight stretches of 32 bits: only those are compared.
    """
    table = np.frombuffer(looks, np.uint8).reshape(-1, LOOK_BYTES)
    stretches, words = table.view(">u4"), table.view(np.uint64)
    bits_of_pair: dict[tuple[int, int], int] = {}
    # Seven differing bits cannot lie in all eight stretches: alike looks share one, and sorting finds it.
    for stretch in range(stretches.shape[1]):
        order = np.argsort(stretches[:, stretch], kind="stable")
        values = stretches[order, stretch]
        for step in range(1, min(CROWD, len(order) - 1) + 1):
            at = np.flatnonzero(values[step:] == values[:-step])
            # Equal values stand side by side: where no pair is found at this distance, none is further apart.
            if not len(at):
                break
            a, b = order[at], order[at + step]  # a stable sort: a before b
            apart = group[a] != group[b]
            a, b = a[apart], b[apart]
            bits = np.bitwise_count(words[a] ^ words[b]).sum(axis=1)
            alike = bits <= ALIKE_BITS
            pairs = zip(a[alike].tolist(), b[alike].tolist(), strict=True)
            bits_of_pair.update(zip(pairs, bits[alike].tolist(), strict=True))
    for (first, second), differing in sorted(bits_of_pair.items()):
        yield first, second, differing
