"""Contact sheets of a packed set: pictures that were kept, by source, and pictures that were left out."""

from __future__ import annotations

import io
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from retfound_dist.formats.shard_set import read_index
from retfound_dist.io import storage
from shards.images.preparation import decode
from shards.planning.pack_plan import PackPlan
from shards.write.committed_shards import CommittedShard
from shards.write.packed_sample import Skipped

WIDTH, HEIGHT, CAPTION, GAP, COLUMNS = 192, 128, 40, 6, 6  # pixels, thumbnails a row
EACH = 2 * COLUMNS
"""Images of each source on the page of examples."""
COMPARED = 32
"""Images of each source that are read back, to be compared with each other."""
DROPPED = 6 * COLUMNS
"""Scans on the page of what was kept out."""
BEFORE = "(before)"
"""Instead of a source's name: of the set that a plan was appended to."""


@dataclass(frozen=True)
class Tile:
    """One picture of a page."""

    pixels: NDArray[np.uint8] | None
    """None where it cannot be read."""
    group: str
    """Its source, or the reason why it was kept out."""
    key: str
    note: str = ""


def kept_tiles(
    url: str, plan: PackPlan, shards: Sequence[CommittedShard], skipped: Collection[Skipped]
) -> list[Tile]:
    """The first images of each source in the shuffled order, read back from the shards."""
    out = {skip.key for skip in skipped}
    wanted: dict[str, list[str]] = defaultdict(list)
    for scan in plan.scans:
        if scan.key not in out and len(wanted[scan.source]) < COMPARED:
            wanted[scan.source].append(scan.key)
    # An append: none of its pictures is in the first shard, so some of the set before are shown beside them.
    if shards and not {key for keys in wanted.values() for key in keys} & set(shards[0].keys):
        planned = {scan.key for scan in plan.scans}
        wanted[BEFORE] = [key for key in shards[0].keys if key not in planned][:EACH]
    pixels = read_keys(url, shards, [key for keys in wanted.values() for key in keys])
    return [Tile(pixels[key], source, key) for source in sorted(wanted) for key in wanted[source]]


def dropped_tiles(plan: PackPlan, skipped: Sequence[Skipped]) -> list[Tile]:
    """The first scans of each reason, read again from their source; empty where all were kept."""
    by_reason: dict[str, list[Skipped]] = defaultdict(list)
    for skip in skipped:
        by_reason[reason_of(skip)].append(skip)
    share = max(1, DROPPED // max(1, len(by_reason)))
    chosen = [skip for reason in sorted(by_reason) for skip in by_reason[reason][:share]][:DROPPED]
    wanted = {skip.key for skip in chosen}
    scans = {scan.key: scan for scan in plan.scans if scan.key in wanted}
    tiles = []
    for skip in chosen:
        try:
            pixels = decode(scans[skip.key].read())
        except Exception:  # it was kept out for a reason, most often this one
            pixels = None
        tiles.append(Tile(pixels, reason_of(skip), skip.key, skip.reason))
    return tiles


def read_keys(
    url: str, shards: Iterable[CommittedShard], keys: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    """Pixels of some samples of a set by their keys; each shard's index is read once at most."""
    left, pixels_of_key = set(keys), {}
    for done in shards:
        here = left.intersection(done.keys) if left else set()
        if not here:
            continue
        left -= here
        # Read back and not from the sources: the page shall show what was written.
        with storage.open_read(storage.join(url, done.shard.name)) as stream:
            for entry in read_index(url, done.shard):
                if entry.key in here:
                    stream.seek(entry.image_offset)
                    pixels_of_key[entry.key] = decode(stream.read(entry.image_bytes))
    return pixels_of_key


def reason_of(skip: Skipped) -> str:
    """The first words of a reason, without what differs from scan to scan."""
    return " ".join(skip.reason.split("(")[0].split()[:4]).rstrip(",;:")


def first_of_each_group(tiles: Sequence[Tile]) -> list[Tile]:
    """The first EACH tiles of each group."""
    seen: dict[str, int] = defaultdict(int)
    chosen = []
    for tile in tiles:
        seen[tile.group] += 1
        if seen[tile.group] <= EACH:
            chosen.append(tile)
    return chosen


def draw_page(tiles: Sequence[Tile], captions: Sequence[str], apart: bool = False) -> bytes:
    """Thumbnails with captions, COLUMNS a row, as a JPEG; `apart`: each group begins a row."""
    slots: list[int] = []
    for place, tile in enumerate(tiles):
        slot = slots[-1] + 1 if slots else 0
        new = place and apart and tile.group != tiles[place - 1].group
        slots.append(slot + (-slot % COLUMNS if new else 0))
    rows = slots[-1] // COLUMNS + 1
    step = (WIDTH + GAP, HEIGHT + CAPTION + GAP)
    page = Image.new("RGB", (COLUMNS * step[0] + GAP, rows * step[1] + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for slot, tile, caption in zip(slots, tiles, captions, strict=True):
        left, top = GAP + slot % COLUMNS * step[0], GAP + slot // COLUMNS * step[1]
        if tile.pixels is not None:
            thumb = thumbnail(tile.pixels)
            page.paste(thumb, (left, top + (HEIGHT - thumb.height)))
        else:
            pen.rectangle((left, top, left + WIDTH - 1, top + HEIGHT - 1), outline="#bbbbbb", fill="#f2f2f2")
        lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, 34)]
        text = "\n".join(lines[:3])
        pen.multiline_text((left, top + HEIGHT + 2), text, fill="#222222", font=font, spacing=1)
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def thumbnail(pixels: NDArray[np.uint8]) -> Image.Image:
    """A small RGB copy."""
    thumb = Image.fromarray(pixels).convert("RGB")
    thumb.thumbnail((WIDTH, HEIGHT))
    return thumb
