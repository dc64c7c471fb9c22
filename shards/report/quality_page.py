"""Writes quality.html: one self-contained page to check a shard set by eye (pure).

It shows packed pictures by source, left-out pictures with the reason, pictures that look alike, burnt-in
marks, and the histogram. Thumbnails are embedded; the page loads nothing from elsewhere.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from shards.images.suspects import keys_to_show
from shards.report.burnt_in import boxes_in, describe_comparison
from shards.report.contact_sheet import Tile, first_of_each_group, full_reason, short_reason, thumbnail
from shards.write.packed_sample import Skipped

PAIRS = 8
"""Similar pairs on the page."""
BARS = 64
"""Bars of the histogram."""
RED = np.array([230, 60, 50], np.uint8)
Pixels = NDArray[np.uint8]


def quality_page(
    tree: Mapping[str, Any], kept: Sequence[Tile], dropped: Sequence[Tile], pictures: Mapping[str, Pixels]
) -> str:
    """Returns HTML for a manifest and pictures of the set; `pictures`: similar and suspect ones by key."""
    environment = Environment(
        loader=PackageLoader("shards.report", "."),
        # Names of files and classes may hold HTML.
        autoescape=True,
        # A missing variable raises, because an empty cell would look like a fact.
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    image, near = tree["image"], tree["near_duplicates"]
    reasons = Counter(short_reason(Skipped.from_row(row)) for row in tree["skipped"])
    page: str = environment.get_template("quality.html.j2").render(
        tree=tree,
        megabytes=sum(shard["bytes"] for shard in tree["shards"]) / 1e6,
        facts=_set_facts(tree, image),
        kept=_group_tiles(first_of_each_group(kept)),
        dropped=[_figure(tile.pixels, tile.key, tile.note) for tile in dropped],
        reasons=[(full_reason(reason), count) for reason, count in reasons.most_common()],
        pairs=[
            (_figure(pictures.get(first), first), _figure(pictures.get(second), second), bits)
            for first, second, bits in near["first"][:PAIRS]
        ],
        near=near,
        suspects=[
            (heading, [_figure(pictures.get(key), key) for key in keys])
            for heading, keys in keys_to_show(tree.get("suspects", {}))
        ],
        burnt_in=[
            (name, comparison, describe_comparison(comparison), _outlined_marks(kept, name, comparison))
            for name, comparisons in tree["burnt_in"].items()
            for comparison in comparisons
        ],
        not_compared=[(name, *counts) for name, counts in tree.get("not_compared", {}).items()],
        framed=[(name, *counts) for name, counts in tree["framed"].items() if counts[0]],
        bars=_bars(image["histogram"]),
    )
    return page


def _set_facts(tree: Mapping[str, Any], image: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns pairs of name and value for the top of the page."""
    encoded = image["grey"] + image["colour"] - image["stored_as_is"]
    loss = "none" if image["format"] != "jpg" or not encoded else "not measured"
    if image["psnr_db"] is not None:
        loss = f"{image['psnr_db']} dB (measured: {image['psnr_images']:,})"
    stored = ", ".join(
        [f"{image['stored_as_is']:,} unchanged"] * bool(image["stored_as_is"])
        + [f"{encoded:,} as {image['format']}"] * bool(encoded)
    )
    return [
        ("B-scans", f"{tree['samples']:,}"),
        ("left out", f"{len(tree['skipped']):,}"),
        ("look alike, other patient", f"{tree['near_duplicates']['pairs']:,} pairs"),
        ("bytes per image", f"{image['bytes_per_image']:,.0f}"),
        ("stored", stored),
        ("encoding loss (PSNR)", loss),
        ("median width x height", f"{image['median_width']} x {image['median_height']}"),
        ("grey / colour", f"{image['grey']:,} / {image['colour']:,}"),
        ("mean level, std. deviation", f"{image['mean']:.0f}, {image['std']:.0f} (of 255)"),
    ]


def _group_tiles(tiles: Sequence[Tile]) -> list[tuple[str, list[dict[str, str]]]]:
    """Returns the figures of the tiles, by group."""
    groups: dict[str, list[dict[str, str]]] = {}
    for tile in tiles:
        groups.setdefault(tile.group, []).append(_figure(tile.pixels, tile.key, tile.note))
    return list(groups.items())


def _figure(pixels: Pixels | None, key: str, note: str = "") -> dict[str, str]:
    return {"picture": _data_url(thumbnail(pixels)) if pixels is not None else "", "key": key, "note": note}


def _outlined_marks(tiles: Sequence[Tile], source: str, comparison: Mapping[str, Any]) -> str:
    """Returns a picture of the source with its burnt-in marks outlined; empty if there are none."""
    examples = (tile.pixels for tile in tiles if (tile.group, tile.key) == (source, comparison["example"]))
    pixels = next(examples, None)
    if not comparison["boxes"] or pixels is None:
        return ""
    # A copy, because the same tile is also shown without the outline.
    shown = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
    for top, left, bottom, right in boxes_in(comparison, *pixels.shape[:2]):
        line = max(1, pixels.shape[0] // 150)
        inside = shown[top + line : bottom - line, left + line : right - line].copy()
        shown[top:bottom, left:right] = RED
        shown[top + line : bottom - line, left + line : right - line] = inside
    picture = Image.fromarray(shown)
    picture.thumbnail((512, 512))
    return _data_url(picture)


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bars(histogram: Sequence[int]) -> list[tuple[float, float]]:
    """Returns (left, height) of each bar, in per cent of the picture."""
    width = len(histogram) // BARS
    counts = [sum(histogram[at : at + width]) for at in range(0, len(histogram), width)]
    return [(100 * n / BARS, round(100 * count / (max(counts) or 1), 2)) for n, count in enumerate(counts)]
