"""Pictures that are probably no B-scan: masks, colour overlays, a photograph beside the scan, en-face images.

Each picture is judged by itself, so that packing can leave it out; nothing is certain, so that it does so
only on request (`image.leave_out_suspects`). Thresholds were set on OCTDL and OCT2017 (1,573 B-scans,
two devices) and on images made of them; docs/datasets.md says how often they are wrong.

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

WHY: dict[str, str] = {
    "mask": "few uniform levels",
    "composite": "two pictures side by side",
    "overlay": "colour on a scan",
    "nir": "grey, without layers",
    "photo": "red over all of it",
}
"""Suspicion -> what it is drawn from."""
NAMED = 24
"""Keys named for each source and suspicion."""
FEW_LEVELS, TINY_LEVELS = 24, 4
"""Levels of a mask that was not compressed; with fewer than the second no picture is a scan."""
FEW_SHARE = 0.85
"""Of what is not background, on four levels: at least this share in masks (scans: at most 0.72)."""
BACKGROUND = 16
RARE = 0.0005
"""Levels of a smaller share are specks."""
COLOURED, COLOURED_SHARE = 40, 0.001
"""Levels by which a coloured pixel's channels differ; share of such pixels that counts."""
PHOTO_SHARE = 0.3
"""Of the pixels coloured in a photograph."""
ROWS = 32
"""Rows a picture is averaged to when a seam is looked for."""
TRIED = 4
"""Columns that are looked at closely, the strongest."""
AROUND = 12
"""Columns at either side that a seam is compared with."""
SEAM, SEAM_STEP = 2.5, 12
"""Strength (times its surroundings x share of rows) of a seam anywhere, and levels across it."""
MIDDLE_SEAM, MIDDLE_STEP = 1.2, 15
"""The same of a seam exactly in the middle, where halves were joined."""
SIDE, STRIP = 96, 24
"""Pixels of the smaller side, and width of a strip, when layers are looked for."""
LAYERED_ROWS, LAYERED_STEEP = 0.6, 0.6
"""Scans: rows explain at least 0.68 of the variance, and 0.64 of the gradients lie across the layers."""
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def suspect_of(pixels: Pixels, came: Pixels) -> Suspect | None:
    """Guesses what a picture, (H, W) or (H, W, 3), is if it is no B-scan; None for a plausible B-scan.

    `came`: with the colours it came with, of which a few thin lines are dropped where it is stored as grey.
    """
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    if is_mask(pixels):
        return "mask"
    if came.ndim == 3 and (suspicion := _by_colour(came)):
        return suspicion
    if has_seam(grey):
        return "composite"
    return "nir" if pixels.ndim == 2 and not has_layers(grey) else None


def is_mask(pixels: Pixels) -> bool:
    """Whether the picture, or each of its colour channels, consists of few levels."""
    some = _thinned(pixels)
    if some.ndim == 3:
        return all(is_mask(some[..., channel]) for channel in range(3))
    share = np.bincount(some.ravel(), minlength=256) / some.size
    levels = int((share > RARE).sum())
    if levels <= FEW_LEVELS:
        flat = float((np.abs(np.diff(some.astype(np.int16), axis=1)) <= 2).mean())
        return levels <= TINY_LEVELS or flat > 0.8
    share[: BACKGROUND + 1] = 0
    return _on_four_levels(share) > FEW_SHARE * float(share.sum()) > 0


def _on_four_levels(share: Floats) -> float:
    """How much of a histogram lies on its four commonest levels, two neighbours at each side included."""
    left, total = share.copy(), 0.0
    for _ in range(4):
        near = np.convolve(left, np.ones(5), "same")
        peak = int(near.argmax())
        total += float(near[peak])
        left[max(0, peak - 2) : peak + 3] = 0
    return total


def _by_colour(pixels: Pixels) -> Suspect | None:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = spread > COLOURED  # all pixels: a drawn line is one or two of them wide
    share = float(coloured.mean())
    if share < COLOURED_SHARE:
        return None
    columns = coloured.mean(axis=0)
    halves = sorted((float(columns[: len(columns) // 2].mean()), float(columns[len(columns) // 2 :].mean())))
    # Colour in one half alone: a fundus photograph beside a grey scan.
    if halves[1] > PHOTO_SHARE and halves[0] < 0.1 * halves[1]:
        return "composite"
    some = pixels[coloured].astype(np.int16)
    fundus = (some[:, 0] >= some[:, 1]) & (some[:, 1] >= some[:, 2] - 10) & (some[:, 0] > some[:, 2] + 30)
    return "photo" if share > PHOTO_SHARE and float(fundus.mean()) > 0.9 else "overlay"


def has_seam(grey_HW: Pixels) -> bool:
    """Whether a step runs from top to bottom at one column, as where two pictures were joined."""
    height, width = grey_HW.shape
    rows = min(ROWS, height)
    flat = np.asarray(Image.fromarray(grey_HW).resize((width, rows), Image.Resampling.BOX), np.float32)
    step = np.abs(flat[:, 2:] - flat[:, :-2])
    mean = step.mean(axis=0)
    low, high = round(0.15 * width), round(0.85 * width) - 2
    if high - low < 2 * AROUND:
        return False
    strength = mean / (np.median(mean) + 0.5)
    columns = low + np.flatnonzero(strength[low:high] > SEAM)
    strongest = columns[np.argsort(-strength[columns])][:TRIED].tolist()
    if any(_seam_at(flat, step, mean, at, SEAM, SEAM_STEP) for at in strongest):
        return True
    middle = [at for at in range(width // 2 - 3, width // 2 + 2) if strength[at] > MIDDLE_SEAM]
    return any(_seam_at(flat, step, mean, at, MIDDLE_SEAM, MIDDLE_STEP) for at in middle)


def _seam_at(flat: Any, step: Any, mean: Any, at: int, least: float, least_step: float) -> bool:
    """Whether there is a seam at one column: strong, in most rows, and with other levels beside it."""
    around = slice(max(0, at - AROUND), at + AROUND + 1)
    strength = mean[at] / (max(np.median(mean[around]), np.median(mean)) + 0.5)
    if strength < least:
        return False
    share = float((step[:, at] > 2 * np.median(step[:, around], axis=1)).mean())
    near = max(4, flat.shape[1] // 24)
    left, right = flat[:, max(0, at - near) : at].mean(axis=1), flat[:, at + 2 : at + 2 + near].mean(axis=1)
    return bool(strength * share > least and np.abs(left - right).mean() > least_step)


def has_layers(grey_HW: Pixels) -> bool:
    """Whether levels change from row to row more than along the rows, as across the layers of a retina."""
    height, width = grey_HW.shape
    scale = SIDE / min(height, width)
    size = (max(SIDE, round(width * scale)), max(SIDE, round(height * scale)))
    small = Image.fromarray(grey_HW).resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(2))
    flat = np.asarray(small, np.float32)
    down, along = float((np.diff(flat, axis=0) ** 2).sum()), float((np.diff(flat, axis=1) ** 2).sum())
    if down >= LAYERED_STEEP * (down + along):
        return True
    strips = np.array_split(flat, max(1, flat.shape[1] // STRIP), axis=1)
    by_rows = float(np.mean([strip.mean(axis=1).var() for strip in strips]))
    return by_rows >= LAYERED_ROWS * float(flat.var())


def count_suspects(
    shard_suspects: Iterable[Mapping[str, Mapping[str, Any]]], images: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Source -> suspicion -> {"images", "of", "first"}, from what each shard holds; `images`: of each source.

    Where most pictures of a source are colour, colour says nothing against one.
    """
    whole: dict[str, dict[str, dict[str, Any]]] = {}
    for shard in shard_suspects:
        for source, kinds in shard.items():
            for kind, (count, keys) in kinds.items():
                mine = whole.setdefault(source, {}).setdefault(
                    kind, {"images": 0, "of": images.get(source, 0), "first": []}
                )
                mine["images"] += count
                mine["first"] = [*mine["first"], *keys][:NAMED]
    for kinds in whole.values():
        # Some devices store every scan in colour: then all would be overlays, and none is.
        coloured = sum(kinds[kind]["images"] for kind in ("overlay", "photo") if kind in kinds)
        if 2 * coloured > max(shard_suspects["of"] for shard_suspects in kinds.values()):
            kinds.pop("overlay", None)
            kinds.pop("photo", None)
    return {source: dict(sorted(kinds.items())) for source, kinds in sorted(whole.items()) if kinds}


def suspect_lines(tree: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each source and suspicion, as terminal and data card say them."""
    return [
        f"{source}: {counts['images']:,} of {counts['of']:,} images look like {suspect_name(kind)} "
        f"({WHY[kind]}), such as {counts['first'][0]}"
        for source, kinds in tree.items()
        for kind, counts in kinds.items()
    ]


def keys_to_show(tree: Mapping[str, Mapping[str, Any]], few: int = 12) -> list[tuple[str, list[str]]]:
    """(heading, keys to be shown) of each source and suspicion, for the quality page."""
    return [
        (f"{source}: {kind}, {counts['images']:,} of {counts['of']:,} images", counts["first"][:few])
        for source, kinds in tree.items()
        for kind, counts in kinds.items()
    ]


def suspect_name(kind: str) -> str:
    """A suspicion in words, with its article."""
    name = {"nir": "near-infrared image", "photo": "fundus photograph"}.get(kind, kind)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _thinned(pixels: Pixels) -> Pixels:
    """Some 40,000 pixels, evenly spaced rows and columns."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 40_000) ** 0.5))
    return np.ascontiguousarray(pixels[::step, ::step])
