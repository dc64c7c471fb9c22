"""Finds pictures that look alike by their difference hashes. Equal pictures have equal `image_digests`.

For the hash a picture is reduced to 17x16 averages. Each pair of neighbours gives one bit (256 bits). Copies
that were re-encoded or scaled differ in a few bits, other eyes in about ninety. All sums are exact, so every
machine computes the same hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_BYTES, HASH_ROWS, HASH_COLUMNS = 32, 16, 17
SUBPIXELS = 16
"""The borders of the averages are rounded to so many parts of a pixel."""
TALLEST = 8192
"""Of a taller picture only every second (third ...) row is used, so that sums are exact in 32-bit floats."""
MAX_DIFFERING_BITS = 7
"""Hashes that differ in no more bits are near duplicates. Of 200 images of OCTDL, 95 % of the copies at
three quarters of the size and JPEG quality 70 differ in 6 bits or fewer; images of other patients in 91."""
MIN_BRIGHTER = 2
"""Levels by which a neighbour must be brighter, so that speckle in dark areas does not count."""
MAX_NEIGHBOURS = 200
"""If more pictures share a chunk of their hash (dark frames), only so many neighbours are compared."""


def difference_hash(pixels: NDArray[np.uint8]) -> bytes:
    """The 256-bit difference hash of (H, W) or (H, W, 3) pixels."""
    grey = pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
    square_sums = _sums_of_four(grey[:: 1 + grey.shape[0] // TALLEST])
    row_weights, heights = _boxes(square_sums.shape[0], HASH_ROWS)
    column_weights, widths = _boxes(square_sums.shape[1], HASH_COLUMNS)
    # BLAS multiplies only floats. These sums stay below 2^24, so 32-bit floats hold them exactly, and the
    # order in which a BLAS adds does not change the bits.
    sums = (row_weights @ square_sums.astype(np.float32)).astype(np.float64) @ column_weights.T.astype(
        np.float64
    )
    means = sums / (4.0 * np.outer(heights, widths))
    return np.packbits(means[:, 1:] > means[:, :-1] + MIN_BRIGHTER).tobytes()


def _sums_of_four(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Returns (H // 2, W // 2): the sum of each square of four pixels, two bytes added at a time."""
    height, width = pixels.shape
    words = np.ascontiguousarray(pixels[: height - height % 2, : width - width % 2]).view(np.uint16)
    pair_sums = words >> 8
    pair_sums += words & 0xFF
    square_sums: NDArray[np.uint16] = pair_sums[0::2] + pair_sums[1::2]
    return square_sums


@lru_cache(maxsize=512)
def _boxes(size: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Returns how much of each pixel lies in each of `count` equal boxes: (count, size) of 0 to SUBPIXELS.

    Also returns the sum of each row, (count,).
    """
    edges = np.arange(count + 1) * (size * SUBPIXELS) // count
    start = np.arange(size)[None] * SUBPIXELS
    overlap = np.minimum(start + SUBPIXELS, edges[1:, None]) - np.maximum(start, edges[:-1, None])
    boxes = np.maximum(overlap, 0)
    return boxes.astype(np.float32), boxes.sum(axis=1).astype(np.float64)


def near_pairs(hashes: bytes, group: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yields (place, place, differing bits) of each pair of similar pictures of different groups.

    Two hashes that differ in 7 bits agree in one of eight chunks of 32 bits. Only such pairs are compared.
    """
    table = np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)
    chunks, words = table.view(">u4"), table.view(np.uint64)
    bits_of_pair: dict[tuple[int, int], int] = {}
    # Seven differing bits cannot lie in all eight chunks, so similar hashes share one, and sorting finds it.
    for chunk in range(chunks.shape[1]):
        order = np.argsort(chunks[:, chunk], kind="stable")
        values = chunks[order, chunk]
        for step in range(1, min(MAX_NEIGHBOURS, len(order) - 1) + 1):
            starts = np.flatnonzero(values[step:] == values[:-step])
            # Equal values are neighbours: without a pair at this distance there is none further apart.
            if not len(starts):
                break
            a, b = order[starts], order[starts + step]  # a stable sort: a before b
            other_group = group[a] != group[b]
            a, b = a[other_group], b[other_group]
            bits = np.bitwise_count(words[a] ^ words[b]).sum(axis=1)
            similar = bits <= MAX_DIFFERING_BITS
            pairs = zip(a[similar].tolist(), b[similar].tolist(), strict=True)
            bits_of_pair.update(zip(pairs, bits[similar].tolist(), strict=True))
    for (first, second), differing in sorted(bits_of_pair.items()):
        yield first, second, differing
