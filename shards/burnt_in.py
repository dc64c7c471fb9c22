"""What is burnt into the pictures of a source: frames, logos, scales that are the same in every image.

Bright lines along the edges (frames.py) are looked for in each image by itself.

Tissue and speckle differ from eye to eye. Pixels that are bright and (nearly) the same in all compared
images of one size are none of either. They are reported, with where they are: a frame can be cut off
with `image.trim`, a logo has to be cropped before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.frames import frame_of
from shards.sheet import BEFORE, Tile

LEAST = 8
"""Images of one size that must be there to be compared."""
SAME_LEVELS = 12
"""Levels by which a burnt-in pixel may differ between images (JPEG blurs it)."""
BRIGHT = 40
"""Darker pixels are background."""
LEAST_PIXELS = 24
"""Fewer pixels in one place are chance."""
REACH = 4
"""Pixels by which parts of one logo lie apart at most."""
NAMED = 5
"""Places named for each source."""
Mask = NDArray[np.bool_]


def find_burnt_in(tiles: Sequence[Tile]) -> dict[str, Any]:
    """Source -> {"images", "height", "width", "share", "boxes"}, for the commonest size of each source.

    Boxes are [top, left, bottom, right], the largest first; a source with too few images of one size to
    be compared is left out.
    """
    by_size: dict[tuple[str, int, int], list[NDArray[np.uint8]]] = defaultdict(list)
    for tile in tiles:
        if tile.pixels is not None and tile.pixels.ndim == 2 and tile.group != BEFORE:
            by_size[(tile.group, *tile.pixels.shape)].append(tile.pixels)
    found: dict[str, Any] = {}
    for (source, height, width), images in sorted(by_size.items(), key=lambda item: len(item[1])):
        if len(images) < LEAST:
            continue
        mask = static_pixels(np.stack(images))
        boxes = boxes_of(mask)
        share = sum(int(mask[t:b, le:r].sum()) for t, le, b, r in boxes) / mask.size
        size = {"images": len(images), "height": height, "width": width}
        found[source] = {**size, "share": round(share, 5), "boxes": boxes[:NAMED]}
    return dict(sorted(found.items()))


def count_framed(tiles: Sequence[Tile]) -> dict[str, list[int]]:
    """Source -> [images with a bright line along an edge, images looked at]."""
    found: dict[str, list[int]] = {}
    for tile in tiles:
        if tile.pixels is not None and tile.group != BEFORE:
            counts = found.setdefault(tile.group, [0, 0])
            counts[0] += any(frame_of(tile.pixels))
            counts[1] += 1
    return dict(sorted(found.items()))


def static_pixels(stack_NHW: NDArray[np.uint8]) -> Mask:
    """(H, W) pixels that are bright and nearly the same in all images."""
    low, high = stack_NHW.min(axis=0), stack_NHW.max(axis=0)
    static: Mask = (high - low <= SAME_LEVELS) & (low >= BRIGHT)
    return static


def boxes_of(mask_HW: Mask) -> list[list[int]]:
    """[top, left, bottom, right] of each place with enough pixels, parts near each other joined."""
    from scipy.ndimage import binary_dilation, find_objects, label

    if not mask_HW.any():
        return []
    parts, _ = label(binary_dilation(mask_HW, iterations=REACH))
    parts[~mask_HW] = 0
    counts = np.bincount(parts.ravel())
    boxes = []
    for number, place in enumerate(find_objects(parts), start=1):
        if place is not None and counts[number] >= LEAST_PIXELS:
            rows, columns = place
            box = [rows.start, columns.start, rows.stop, columns.stop]
            boxes.append((int(counts[number]), [int(edge) for edge in box]))
    return [box for _, box in sorted(boxes, key=lambda item: (-item[0], item[1]))]
