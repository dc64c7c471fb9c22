"""Finds marks that are burnt into the pictures of a source: frames, logos, scales.

Bright lines along the edges (viewer_frames.py) are searched in each image by itself.

Tissue and speckle differ from eye to eye. So pixels that are bright and nearly the same in all images are a
mark. Images of one size are compared as they are. Images of many sizes are aligned at each corner and scaled.
Each mark is reported with its place. `image.trim` removes a frame; a logo has to be cropped before.

Shapes: N images, H height, W width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.images.viewer_frames import frame_of
from shards.report.contact_sheet import BASE_SET, Tile

MIN_IMAGES = 8
"""A comparison needs at least so many images."""
SAME_LEVELS = 12
"""Levels by which a burnt-in pixel may differ between images (JPEG blurs it)."""
BRIGHT = 40
"""Darker pixels are background."""
MIN_PIXELS = 24
"""Fewer pixels in one place may be the same by chance."""
MAX_GAP = 4
"""Largest distance of parts of one logo, in pixels."""
MAX_BOXES = 5
"""Places that are reported for each comparison."""
Mask = NDArray[np.bool_]
CORNERS = ("top left", "top right", "bottom left", "bottom right")
Grey = NDArray[np.uint8]
Boxes = list[list[int]]
"""Each [top, left, bottom, right] in pixels; bottom and right are exclusive."""
Group = list[tuple[str, Grey]]
"""Key and grey pixels of images; for colour, the brightest channel."""


def find_burnt_in(tiles: Sequence[Tile]) -> dict[str, list[dict[str, Any]]]:
    """Finds frames and marks that are the same in all images of a source.

    Returns source -> comparisons: {"images", "height", "width", "how", "share", "boxes", "example"}.

    `how`: `size` for images of one size. Else the corner at which images of many sizes were aligned, or
    `scaled`, or `many sizes` if none of these shows a mark. Boxes are [top, left, bottom, right] in a picture
    of `height` x `width`, the largest first. `share`: pixels in boxes that are the same in all images,
    relative to all pixels. `example`: the key of a compared image.
    """
    comparisons: dict[str, list[dict[str, Any]]] = {}
    for source, (same_size, mixed_sizes, _) in _group_by_size(tiles).items():
        comparisons[source] = [
            _compare_group(group, [grey for _, grey in group], "size") for group in same_size
        ]
        comparisons[source] += _compare_sizes(mixed_sizes) if mixed_sizes else []
    return {source: results for source, results in sorted(comparisons.items()) if results}


def count_not_compared(tiles: Sequence[Tile]) -> dict[str, list[int]]:
    """Returns source -> [images that were not compared, images read], for sources that have some."""
    counts = {}
    for source, (same_size, mixed_sizes, others) in sorted(_group_by_size(tiles).items()):
        if others:
            counts[source] = [len(others), len(others) + len(mixed_sizes) + sum(map(len, same_size))]
    return counts


def boxes_in(comparison: Mapping[str, Any], height: int, width: int) -> Boxes:
    """Returns the boxes of a comparison in one of its images, of `height` x `width`."""
    alignment, boxes = comparison["how"], comparison["boxes"]
    if alignment == "scaled":
        down, along = height / comparison["height"], width / comparison["width"]
        factors = (down, along, down, along)
        return [[round(edge * factor) for edge, factor in zip(box, factors, strict=True)] for box in boxes]
    # Corners were compared over the smallest sides, so a box at the bottom or right is moved there.
    down = height - comparison["height"] if alignment.startswith("bottom") else 0
    along = width - comparison["width"] if alignment.endswith("right") else 0
    return [[top + down, left + along, bottom + down, right + along] for top, left, bottom, right in boxes]


def describe_comparison(comparison: Mapping[str, Any]) -> str:
    """Returns which images were compared, and how they were aligned."""
    images = f"{comparison['images']} images"
    size, alignment = f"{comparison['width']} x {comparison['height']}", comparison["how"]
    if alignment == "size":
        return f"{images} of {size} pixels"
    if alignment in CORNERS:
        return f"{images} of many sizes, {size} pixels at the {alignment} of each"
    if alignment == "scaled":
        return f"{images} of many sizes, scaled to {size} pixels"
    return f"{images} of many sizes, at each corner and scaled"


def _group_by_size(tiles: Sequence[Tile]) -> dict[str, tuple[list[Group], Group, Group]]:
    """Returns source -> (groups of one size, images of many sizes, images that are too few or too small)."""
    by_size: dict[str, dict[tuple[int, ...], Group]] = defaultdict(lambda: defaultdict(list))
    for tile in tiles:
        if tile.pixels is not None and tile.group != BASE_SET:
            # The brightest channel, because a mark in one colour is dark in the mean of three.
            grey = tile.pixels if tile.pixels.ndim == 2 else tile.pixels.max(axis=2)
            by_size[tile.group][grey.shape].append((tile.key, grey))
    groups_of_source = {}
    for source, sizes in by_size.items():
        groups = sorted(sizes.values(), key=lambda group: -len(group))
        mixed = [image for group in groups if len(group) < MIN_IMAGES for image in group]
        sides = np.array([grey.shape for _, grey in mixed]).reshape(-1, 2)
        # Corners are compared over the smallest sides, so one tiny picture would hide every mark.
        is_large = (sides >= np.median(sides, axis=0) / 2).all(axis=1) if mixed else sides[:, 0] > 0
        is_large = is_large if is_large.sum() >= MIN_IMAGES else np.zeros(len(mixed), bool)
        groups_of_source[source] = (
            [group for group in groups if len(group) >= MIN_IMAGES],
            [image for image, large in zip(mixed, is_large, strict=True) if large],
            [image for image, large in zip(mixed, is_large, strict=True) if not large],
        )
    return groups_of_source


def _compare_group(group: Group, stack: Sequence[Grey], alignment: str) -> dict[str, Any]:
    """Returns one comparison of `find_burnt_in`.

    `stack`: the pixels to compare, all of one size: those of the images, or of a corner of each, or scaled.
    `alignment`: which of these (`how`).
    """
    mask_HW = static_pixels(np.stack(stack))
    boxes = boxes_of(mask_HW)
    in_boxes = sum(int(mask_HW[top:bottom, left:right].sum()) for top, left, bottom, right in boxes)
    share = in_boxes / mask_HW.size
    height, width = mask_HW.shape
    size = {"images": len(group), "height": height, "width": width, "how": alignment}
    return {**size, "share": round(share, 5), "boxes": boxes[:MAX_BOXES], "example": group[0][0]}


def _compare_sizes(group: Group) -> list[dict[str, Any]]:
    """Compares images of many sizes: a mark keeps its place in a corner, or is scaled with the picture."""
    heights, widths = zip(*(grey.shape for _, grey in group), strict=True)
    low, narrow = min(heights), min(widths)
    results = []
    for corner in CORNERS:
        rows = slice(-low, None) if corner.startswith("bottom") else slice(low)
        columns = slice(-narrow, None) if corner.endswith("right") else slice(narrow)
        results.append(_compare_group(group, [grey[rows, columns] for _, grey in group], corner))
    size = (int(np.median(widths)), int(np.median(heights)))
    # A viewer that scales its window scales the mark with the scan.
    scaled = [np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)) for _, grey in group]
    results.append(_compare_group(group, scaled, "scaled"))
    return [result for result in results if result["boxes"]] or [{**results[-1], "how": "many sizes"}]


def count_framed(tiles: Sequence[Tile]) -> dict[str, list[int]]:
    """Returns source -> [images with a bright line along an edge, images that were checked]."""
    counts_of_source: dict[str, list[int]] = {}
    for tile in tiles:
        if tile.pixels is not None and tile.group != BASE_SET:
            counts = counts_of_source.setdefault(tile.group, [0, 0])
            counts[0] += any(frame_of(tile.pixels))
            counts[1] += 1
    return dict(sorted(counts_of_source.items()))


def static_pixels(stack_NHW: NDArray[np.uint8]) -> Mask:
    """Returns (H, W): which pixels are bright and nearly the same in all images."""
    low, high = stack_NHW.min(axis=0), stack_NHW.max(axis=0)
    static: Mask = (high - low <= SAME_LEVELS) & (low >= BRIGHT)
    return static


def boxes_of(mask_HW: Mask) -> Boxes:
    """Returns a box [top, left, bottom, right] around each mark, in pixels, that with most pixels first.

    `mask_HW`: pixels that may belong to a mark. `bottom` and `right` are exclusive. A mark has at least
    `MIN_PIXELS` pixels. Letters of one logo are one mark.
    """
    # Imported here, because scipy is slow to import and most commands need no boxes.
    from scipy.ndimage import binary_dilation, find_objects, label

    if not mask_HW.any():
        return []
    # The dilation joins near components. The pixels that it added must not count, nor widen the boxes.
    components_HW, _ = label(binary_dilation(mask_HW, iterations=MAX_GAP))
    components_HW[~mask_HW] = 0
    pixel_counts = np.bincount(components_HW.ravel())
    boxes = []
    for number, place in enumerate(find_objects(components_HW), start=1):
        if place is not None and pixel_counts[number] >= MIN_PIXELS:
            rows, columns = place
            box = [rows.start, columns.start, rows.stop, columns.stop]
            boxes.append((int(pixel_counts[number]), [int(edge) for edge in box]))
    return [box for _, box in sorted(boxes, key=lambda item: (-item[0], item[1]))]
