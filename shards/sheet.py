"""Pictures of a packed set: a page of what was kept, by source, and one of what was kept out and why."""

from __future__ import annotations

import io
import textwrap
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from retfound_dist import storage
from retfound_dist.shardset import Entry, read_index
from shards.committed import Committed
from shards.images import decode
from shards.plan import Plan
from shards.sample import Skipped

WIDTH, HEIGHT, CAPTION, GAP, COLUMNS = 192, 128, 40, 6, 6  # pixels, thumbnails a row
EACH = 2 * COLUMNS
"""Images of each source on the page of examples."""
DROPPED = 6 * COLUMNS
"""Scans on the page of what was kept out."""
Tile = tuple[NDArray[np.uint8] | None, str]


def kept_page(url: str, plan: Plan, shards: Sequence[Committed]) -> bytes:
    """A JPEG of the first images of each source in the shuffled order, read back from the shards."""
    place = {key: done for done in shards for key in done.keys}
    wanted: dict[str, list[str]] = defaultdict(list)
    for scan in plan.scans:
        if scan.key in place and len(wanted[scan.source]) < EACH:
            wanted[scan.source].append(scan.key)
    indexes: dict[str, dict[str, Entry]] = {}
    planned = {scan.key for scan in plan.scans}
    if shards and (older := [key for key in shards[0].keys if key not in planned][:EACH]):
        wanted["(before)"] = older  # of the set that this plan was appended to
    tiles: list[Tile] = []
    for source in sorted(wanted):
        tiles += [(None, "")] * (-len(tiles) % COLUMNS)
        for key in wanted[source]:
            shard = place[key].shard
            if shard.name not in indexes:
                indexes[shard.name] = {entry.key: entry for entry in read_index(url, shard)}
            tiles.append((_read(url, shard.name, indexes[shard.name][key]), f"{source}\n{key}"))
    return draw(tiles)


def dropped_page(plan: Plan, skipped: Sequence[Skipped]) -> bytes | None:
    """A JPEG of the first scans of each reason, read again from their source; None where all were kept."""
    if not skipped:
        return None
    by_reason: dict[str, list[Skipped]] = defaultdict(list)
    for skip in skipped:
        by_reason[reason_of(skip)].append(skip)
    share = max(1, DROPPED // len(by_reason))
    chosen = [skip for reason in sorted(by_reason) for skip in by_reason[reason][:share]][:DROPPED]
    scans = {scan.key: scan for scan in plan.scans}
    tiles: list[Tile] = []
    for skip in chosen:
        try:
            pixels = decode(scans[skip.key].read())
        except Exception:  # it was kept out for a reason, most often this one
            pixels = None
        tiles.append((pixels, f"{skip.key} {skip.reason}"))
    return draw(tiles)


def reason_of(skip: Skipped) -> str:
    """The reason without what differs from scan to scan: its first words."""
    return " ".join(skip.reason.split("(")[0].split()[:4])


def draw(tiles: Sequence[Tile]) -> bytes:
    """Thumbnails with captions, COLUMNS a row, as a JPEG; no picture: an empty frame."""
    rows = -(-len(tiles) // COLUMNS)
    step = (WIDTH + GAP, HEIGHT + CAPTION + GAP)
    page = Image.new("RGB", (COLUMNS * step[0] + GAP, rows * step[1] + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for slot, (pixels, caption) in enumerate(tiles):
        left, top = GAP + slot % COLUMNS * step[0], GAP + slot // COLUMNS * step[1]
        if pixels is not None:
            thumb = Image.fromarray(pixels).convert("RGB")
            thumb.thumbnail((WIDTH, HEIGHT))
            page.paste(thumb, (left, top + (HEIGHT - thumb.height)))
        elif caption:
            pen.rectangle((left, top, left + WIDTH - 1, top + HEIGHT - 1), outline="#bbbbbb", fill="#f2f2f2")
        lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, 34)]
        pen.multiline_text(
            (left, top + HEIGHT + 2), "\n".join(lines[:3]), fill="#222222", font=font, spacing=1
        )
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _read(url: str, shard: str, entry: Entry) -> NDArray[np.uint8]:
    with storage.open_read(storage.join(url, shard)) as stream:
        stream.seek(entry.image_offset)
        return decode(stream.read(entry.image_bytes))
