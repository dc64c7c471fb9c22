"""Which pictures are the same, and which look alike: digests of pixels and coarse looks.

A digest tells equal pixels, whatever file they came in. A look is a difference hash: the picture
reduced to 17x16 averages, one bit for each pair of neighbours (256 bits); copies that were re-encoded
or scaled differ in a few bits, other eyes in some ninety.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOOK_BYTES = 32
ALIKE_BITS = 7
"""Looks that differ in no more bits are near duplicates. Of 200 images of OCTDL, 95 % of the copies at
three quarters of the size and JPEG quality 70 differ in 6 bits or fewer; images of other patients in 91."""
MARGIN = 2
"""Levels by which a neighbour must be brighter: speckle in the dark does not count."""
CROWD = 200
"""Where more pictures share a stretch of their look (dark frames), so many neighbours are compared."""


def pixel_digest(pixels: NDArray[np.uint8]) -> int:
    """64 bits of the sha256 of shape and pixels."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(digest.digest()[:8], "big")


def look(pixels: NDArray[np.uint8]) -> bytes:
    """The 256-bit difference hash of (H, W) or (H, W, 3) pixels."""
    grey = Image.fromarray(pixels).convert("L").resize((17, 16), Image.Resampling.BOX)
    means = np.asarray(grey).astype(np.int16)
    return np.packbits(means[:, 1:] > means[:, :-1] + MARGIN).tobytes()


def near_pairs(looks: bytes, groups: Sequence[object]) -> Iterator[tuple[int, int, int]]:
    """(place, place, bits that differ) of alike pictures of different groups, each pair once.

    Two looks that differ in 7 bits agree in one of eight stretches of 32 bits: only those are compared.
    """
    table = np.frombuffer(looks, np.uint8).reshape(-1, LOOK_BYTES)
    codes = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    group = np.array([codes[name] for name in groups], np.int64)
    stretches, words = table.view(">u4"), table.view(np.uint64)
    found: dict[tuple[int, int], int] = {}
    for stretch in range(stretches.shape[1]):
        order = np.argsort(stretches[:, stretch], kind="stable")
        values = stretches[order, stretch]
        for step in range(1, min(CROWD, len(order) - 1) + 1):
            at = np.flatnonzero(values[step:] == values[:-step])
            if not len(at):
                break
            a, b = order[at], order[at + step]  # a stable sort: a before b
            apart = group[a] != group[b]
            a, b = a[apart], b[apart]
            bits = np.bitwise_count(words[a] ^ words[b]).sum(axis=1)
            alike = bits <= ALIKE_BITS
            pairs = zip(a[alike].tolist(), b[alike].tolist(), strict=True)
            found.update(zip(pairs, bits[alike].tolist(), strict=True))
    for (first, second), differing in sorted(found.items()):
        yield first, second, differing
