"""Finds pictures that are probably not B-scans: masks, overlays, photographs beside a scan, en-face images.

Each picture is checked by itself. The result can be wrong, so such pictures are left out only on request
(`image.leave_out_suspects`). Thresholds were set on OCTDL and OCT2017 (1,573 B-scans, two devices) and on
images made from them. docs/datasets.md says how often they are wrong.

    mask        few levels or colours: a layer or fluid drawing
    composite   a seam from top to bottom: two pictures side by side
    overlay     colour on a scan: lines, maps, two images merged
    nir         grey without layers: a near-infrared or other en-face image
    photo       colour of a fundus photograph
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from retfound_dist.config.schema.pack_settings import Suspect

EVIDENCE: dict[str, str] = {
    "mask": "few uniform levels",
    "composite": "two pictures side by side",
    "overlay": "colour on a scan",
    "nir": "grey, without layers",
    "photo": "red over all of it",
}
"""Kind of suspect -> what the picture looks like."""
MAX_NAMED_KEYS = 24
"""Keys that the manifest lists for each source and kind."""
MASK_LEVELS, FEWEST_SCAN_LEVELS = 24, 4
"""A mask that was not compressed has at most so many levels. No scan has as few as the second number."""
MASK_SHARE = 0.85
"""Share of the pixels above the background that lie on four levels. Masks have more, scans at most 0.72."""
BACKGROUND_LEVEL = 16
SPECK_SHARE = 0.0005
"""Levels of a smaller share are specks and do not count."""
COLOURED, COLOURED_SHARE = 40, 0.001
"""Difference of the channels of a coloured pixel, and the share of such pixels that counts."""
PHOTO_SHARE = 0.3
"""Share of coloured pixels in a photograph."""
SEAM_ROWS = 32
"""A picture is averaged to so many rows before a seam is searched."""
SEAM_CANDIDATES = 4
"""The strongest columns, which are checked closely."""
SEAM_NEIGHBOURS = 12
"""Columns on each side that a seam is compared with."""
SEAM_STRENGTH, SEAM_STEP = 2.5, 12
"""A seam anywhere: its step relative to its neighbours x share of rows, and levels across it."""
MIDDLE_STRENGTH, MIDDLE_STEP = 1.2, 15
"""The same for a seam exactly in the middle, where two halves were joined."""
SMALL_SIDE, STRIP_WIDTH = 96, 24
"""Pixels of the smaller side, and width of a strip, when layers are searched."""
LAYER_VARIANCE, LAYER_GRADIENTS = 0.6, 0.6
"""In scans rows explain at least 0.68 of the variance, and 0.64 of the gradients lie across the layers."""
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def suspect_of(pixels: Pixels, original: Pixels) -> Suspect | None:
    """Returns the kind of a picture, (H, W) or (H, W, 3), that is probably not a B-scan; None for a B-scan.

    `original`: with all colours. `pixels` may be grey where `original` has thin coloured lines.
    """
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    if is_mask(pixels):
        return "mask"
    if original.ndim == 3 and (suspicion := _suspect_by_colour(original)):
        return suspicion
    if has_seam(grey):
        return "composite"
    return "nir" if pixels.ndim == 2 and not has_layers(grey) else None


def is_mask(pixels: Pixels) -> bool:
    """Whether the picture, or each of its colour channels, has few levels."""
    sampled = _thinned(pixels)
    if sampled.ndim == 3:
        return all(is_mask(sampled[..., channel]) for channel in range(3))
    share = np.bincount(sampled.ravel(), minlength=256) / sampled.size
    levels = int((share > SPECK_SHARE).sum())
    if levels <= MASK_LEVELS:
        flat = float((np.abs(np.diff(sampled.astype(np.int16), axis=1)) <= 2).mean())
        return levels <= FEWEST_SCAN_LEVELS or flat > 0.8
    share[: BACKGROUND_LEVEL + 1] = 0
    return _share_on_four_levels(share) > MASK_SHARE * float(share.sum()) > 0


def _share_on_four_levels(share: Floats) -> float:
    """Returns the share of a histogram on its four commonest levels, with two neighbours on each side."""
    remaining, total = share.copy(), 0.0
    for _ in range(4):
        near = np.convolve(remaining, np.ones(5), "same")
        peak = int(near.argmax())
        total += float(near[peak])
        remaining[max(0, peak - 2) : peak + 3] = 0
    return total


def _suspect_by_colour(pixels: Pixels) -> Suspect | None:
    """Returns why an RGB image is probably no B-scan, by its colours; None if it may be one."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = spread > COLOURED  # all pixels: a drawn line is one or two of them wide
    share = float(coloured.mean())
    if share < COLOURED_SHARE:
        return None
    columns = coloured.mean(axis=0)
    halves = sorted((float(columns[: len(columns) // 2].mean()), float(columns[len(columns) // 2 :].mean())))
    # Colour in only one half: a fundus photograph beside a grey scan.
    if halves[1] > PHOTO_SHARE and halves[0] < 0.1 * halves[1]:
        return "composite"
    sampled = pixels[coloured].astype(np.int16)
    fundus = (
        (sampled[:, 0] >= sampled[:, 1])
        & (sampled[:, 1] >= sampled[:, 2] - 10)
        & (sampled[:, 0] > sampled[:, 2] + 30)
    )
    return "photo" if share > PHOTO_SHARE and float(fundus.mean()) > 0.9 else "overlay"


def has_seam(grey_HW: Pixels) -> bool:
    """Whether there is a step from top to bottom at one column, as where two pictures were joined."""
    height, width = grey_HW.shape
    rows = min(SEAM_ROWS, height)
    flat = np.asarray(Image.fromarray(grey_HW).resize((width, rows), Image.Resampling.BOX), np.float32)
    step = np.abs(flat[:, 2:] - flat[:, :-2])
    mean = step.mean(axis=0)
    low, high = round(0.15 * width), round(0.85 * width) - 2
    if high - low < 2 * SEAM_NEIGHBOURS:
        return False
    strength = mean / (np.median(mean) + 0.5)
    columns = low + np.flatnonzero(strength[low:high] > SEAM_STRENGTH)
    strongest = columns[np.argsort(-strength[columns])][:SEAM_CANDIDATES].tolist()
    if any(_seam_at(flat, step, mean, column, SEAM_STRENGTH, SEAM_STEP) for column in strongest):
        return True
    middle = [
        column for column in range(width // 2 - 3, width // 2 + 2) if strength[column] > MIDDLE_STRENGTH
    ]
    return any(_seam_at(flat, step, mean, column, MIDDLE_STRENGTH, MIDDLE_STEP) for column in middle)


def _seam_at(flat: Any, step: Any, mean: Any, column: int, least: float, least_step: float) -> bool:
    """Whether one column is a seam: a strong step in most rows, with different levels on its two sides."""
    around = slice(max(0, column - SEAM_NEIGHBOURS), column + SEAM_NEIGHBOURS + 1)
    strength = mean[column] / (max(np.median(mean[around]), np.median(mean)) + 0.5)
    if strength < least:
        return False
    share = float((step[:, column] > 2 * np.median(step[:, around], axis=1)).mean())
    near = max(4, flat.shape[1] // 24)
    left, right = (
        flat[:, max(0, column - near) : column].mean(axis=1),
        flat[:, column + 2 : column + 2 + near].mean(axis=1),
    )
    return bool(strength * share > least and np.abs(left - right).mean() > least_step)


def has_layers(grey_HW: Pixels) -> bool:
    """Whether levels change more from row to row than along the rows, as the layers of a retina do."""
    height, width = grey_HW.shape
    scale = SMALL_SIDE / min(height, width)
    size = (max(SMALL_SIDE, round(width * scale)), max(SMALL_SIDE, round(height * scale)))
    small = Image.fromarray(grey_HW).resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(2))
    flat = np.asarray(small, np.float32)
    down, along = float((np.diff(flat, axis=0) ** 2).sum()), float((np.diff(flat, axis=1) ** 2).sum())
    if down >= LAYER_GRADIENTS * (down + along):
        return True
    strips = np.array_split(flat, max(1, flat.shape[1] // STRIP_WIDTH), axis=1)
    by_rows = float(np.mean([strip.mean(axis=1).var() for strip in strips]))
    return by_rows >= LAYER_VARIANCE * float(flat.var())


def count_suspects(
    shard_suspects: Iterable[Mapping[str, Mapping[str, Any]]], images: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Returns source -> kind -> {"images", "of", "first"}, summed over shards; `images`: source -> images.

    If most pictures of a source have colour, colour is no sign of a suspect picture.
    """
    totals: dict[str, dict[str, dict[str, Any]]] = {}
    for shard in shard_suspects:
        for source, kinds in shard.items():
            for kind, (count, keys) in kinds.items():
                entry = totals.setdefault(source, {}).setdefault(
                    kind, {"images": 0, "of": images.get(source, 0), "first": []}
                )
                entry["images"] += count
                entry["first"] = [*entry["first"], *keys][:MAX_NAMED_KEYS]
    for kinds in totals.values():
        # Some devices store every scan in colour, so that all would count as overlays.
        coloured = sum(kinds[kind]["images"] for kind in ("overlay", "photo") if kind in kinds)
        if 2 * coloured > max(counts["of"] for counts in kinds.values()):
            kinds.pop("overlay", None)
            kinds.pop("photo", None)
    return {source: dict(sorted(kinds.items())) for source, kinds in sorted(totals.items()) if kinds}


def suspect_lines(suspects: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns one sentence for each source and kind, for the terminal and the data card."""
    return [
        f"{_count_line(source, kind, counts)} ({EVIDENCE[kind]}), such as {counts['first'][0]}"
        for source, kinds in suspects.items()
        for kind, counts in kinds.items()
    ]


def _count_line(source: str, kind: str, counts: Mapping[str, Any]) -> str:
    return f"{source}: {counts['images']:,} of {counts['of']:,} images look like {suspect_name(kind)}"


def keys_to_show(suspects: Mapping[str, Mapping[str, Any]], limit: int = 12) -> list[tuple[str, list[str]]]:
    """Returns (heading, keys) of each source and kind, for the quality page."""
    return [
        (_count_line(source, kind, counts) + f" ({kind})", counts["first"][:limit])
        for source, kinds in suspects.items()
        for kind, counts in kinds.items()
    ]


def suspect_name(kind: str) -> str:
    """Returns a kind in words, with its article."""
    name = {"nir": "near-infrared image", "photo": "fundus photograph"}.get(kind, kind)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _thinned(pixels: Pixels) -> Pixels:
    """Returns some 40,000 pixels of evenly spaced rows and columns."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 40_000) ** 0.5))
    return np.ascontiguousarray(pixels[::step, ::step])
