"""Finds marks that are burnt into the pictures of a source: frames, logos, scales.

Bright lines along the edges (viewer_frames.py) are looked for in each image by itself.

Tissue and speckle differ from eye to eye. Pixels that are bright and nearly the same in all compared
images are therefore a mark. Images of one size are laid upon each other; those of many sizes are, too, at
each corner and scaled. What is found is reported, with where it is: a frame can be cut off with
`image.trim`, a logo has to be cropped before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.images.viewer_frames import frame_of
from shards.report.contact_sheet import BEFORE, Tile

LEAST = 8
"""Images that must be there to be compared."""
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


CORNERS = ("top left", "top right", "bottom left", "bottom right")
Grey = NDArray[np.uint8]
Boxes = list[list[int]]
Group = list[tuple[str, Grey]]
"""Key and pixels of images, of colour the brightest channel."""


def find_burnt_in(tiles: Sequence[Tile]) -> dict[str, list[dict[str, Any]]]:
    """Source -> comparisons: {"images", "height", "width", "how", "share", "boxes", "example"}.

    `how`: images of one `size`; images of many sizes, laid upon each other at a corner (its name), `scaled`
    to one size, or `many sizes` where neither shows a mark. Boxes are [top, left, bottom, right] in a
    picture of `height` x `width`, the largest first; `example`: the key of a compared image.
    """
    comparisons: dict[str, list[dict[str, Any]]] = {}
    for source, (same, rest, _) in _grouped(tiles).items():
        comparisons[source] = [_compare(group, [grey for _, grey in group], "size") for group in same]
        comparisons[source] += _compare_sizes(rest) if rest else []
    return {source: compared for source, compared in sorted(comparisons.items()) if compared}


def count_not_compared(tiles: Sequence[Tile]) -> dict[str, list[int]]:
    """Source -> [images that were not compared, images read], for sources that have some."""
    counts = {}
    for source, (same, rest, left) in sorted(_grouped(tiles).items()):
        if left:
            counts[source] = [len(left), len(left) + len(rest) + sum(map(len, same))]
    return counts


def boxes_in(comparison: Mapping[str, Any], height: int, width: int) -> Boxes:
    """The boxes of a comparison, placed in one of its images of `height` x `width`."""
    alignment, boxes = comparison["how"], comparison["boxes"]
    if alignment == "scaled":
        down, along = height / comparison["height"], width / comparison["width"]
        factors = (down, along, down, along)
        return [[round(edge * by) for edge, by in zip(box, factors, strict=True)] for box in boxes]
    down = height - comparison["height"] if alignment.startswith("bottom") else 0
    along = width - comparison["width"] if alignment.endswith("right") else 0
    return [[top + down, left + along, bottom + down, right + along] for top, left, bottom, right in boxes]


def compared_as(comparison: Mapping[str, Any]) -> str:
    """Says in words how the images of a comparison were aligned."""
    size, alignment = f"{comparison['width']} x {comparison['height']}", comparison["how"]
    if alignment == "size":
        return f"of {size}"
    if alignment in CORNERS:
        return f"of many sizes, by the {size} pixels at their {alignment},"
    return (
        f"of many sizes, scaled to {size},"
        if alignment == "scaled"
        else "of many sizes, at corners and scaled,"
    )


def _grouped(tiles: Sequence[Tile]) -> dict[str, tuple[list[Group], Group, Group]]:
    """Source -> (groups of enough images of one size, those of many sizes, those too few or too small)."""
    by_size: dict[str, dict[tuple[int, ...], Group]] = defaultdict(lambda: defaultdict(list))
    for tile in tiles:
        if tile.pixels is not None and tile.group != BEFORE:
            # The brightest channel: a mark in one colour is dark in the mean of three.
            grey = tile.pixels if tile.pixels.ndim == 2 else tile.pixels.max(axis=2)
            by_size[tile.group][grey.shape].append((tile.key, grey))
    groups_of_source = {}
    for source, sizes in by_size.items():
        groups = sorted(sizes.values(), key=lambda group: -len(group))
        rest = [one for group in groups if len(group) < LEAST for one in group]
        sides = np.array([grey.shape for _, grey in rest]).reshape(-1, 2)
        # Corners are compared over the smallest sides: one tiny picture would hide every mark.
        large = (sides >= np.median(sides, axis=0) / 2).all(axis=1) if rest else sides[:, 0] > 0
        large = large if large.sum() >= LEAST else np.zeros(len(rest), bool)
        groups_of_source[source] = (
            [group for group in groups if len(group) >= LEAST],
            [one for one, fits in zip(rest, large, strict=True) if fits],
            [one for one, fits in zip(rest, large, strict=True) if not fits],
        )
    return groups_of_source


def _compare(group: Group, stack: Sequence[Grey], alignment: str) -> dict[str, Any]:
    mask = static_pixels(np.stack(stack))
    boxes = boxes_of(mask)
    share = sum(int(mask[t:b, le:r].sum()) for t, le, b, r in boxes) / mask.size
    height, width = mask.shape
    size = {"images": len(group), "height": height, "width": width, "how": alignment}
    return {**size, "share": round(share, 5), "boxes": boxes[:NAMED], "example": group[0][0]}


def _compare_sizes(group: Group) -> list[dict[str, Any]]:
    """Images of many sizes: a mark keeps its place in a corner, or was scaled with the picture."""
    heights, widths = zip(*(grey.shape for _, grey in group), strict=True)
    low, narrow = min(heights), min(widths)
    tries = []
    for corner in CORNERS:
        rows = slice(-low, None) if corner.startswith("bottom") else slice(low)
        columns = slice(-narrow, None) if corner.endswith("right") else slice(narrow)
        tries.append(_compare(group, [grey[rows, columns] for _, grey in group], corner))
    size = (int(np.median(widths)), int(np.median(heights)))
    # A viewer that scales its window scales the mark with the scan.
    scaled = [np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)) for _, grey in group]
    tries.append(_compare(group, scaled, "scaled"))
    return [one for one in tries if one["boxes"]] or [{**tries[-1], "how": "many sizes"}]


def count_framed(tiles: Sequence[Tile]) -> dict[str, list[int]]:
    """Source -> [images with a bright line along an edge, images looked at]."""
    counts_of_source: dict[str, list[int]] = {}
    for tile in tiles:
        if tile.pixels is not None and tile.group != BEFORE:
            counts = counts_of_source.setdefault(tile.group, [0, 0])
            counts[0] += any(frame_of(tile.pixels))
            counts[1] += 1
    return dict(sorted(counts_of_source.items()))


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
