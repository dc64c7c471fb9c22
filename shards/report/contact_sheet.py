"""Contact sheets of a packed set: examples of each source, and pictures that were left out."""

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
from shards.write.packed_sample import SAME_PICTURE, Skipped

WIDTH, HEIGHT, CAPTION, GAP = 192, 128, 40, 6  # pixels
COLUMNS = 6
"""Thumbnails per row."""
MAX_EXAMPLES = 2 * COLUMNS
"""Images of each source on the page of examples."""
MAX_COMPARED = 32
"""Images of each source that are read back and compared with each other."""
MAX_DROPPED = 6 * COLUMNS
"""Scans on the page of those that were left out."""
BASE_SET = "(before the append)"
"""Group of images of the set before sources were appended, instead of a source's name."""


@dataclass(frozen=True)
class Tile:
    """One picture of a page."""

    pixels: NDArray[np.uint8] | None
    """None where it cannot be read."""
    group: str
    """Its source, or the reason why it was left out."""
    key: str
    note: str = ""


def kept_tiles(
    url: str, plan: PackPlan, shards: Sequence[CommittedShard], skipped: Collection[Skipped]
) -> list[Tile]:
    """Returns the first images of each source in the shuffled order, read back from the shards."""
    skipped_keys = {skip.key for skip in skipped}
    keys_of_group: dict[str, list[str]] = defaultdict(list)
    for scan in plan.scans:
        if scan.key not in skipped_keys and len(keys_of_group[scan.source]) < MAX_COMPARED:
            keys_of_group[scan.source].append(scan.key)
    # After an append the first shard has none of these pictures. Some older ones are shown beside them.
    if shards and not {key for keys in keys_of_group.values() for key in keys} & set(shards[0].keys):
        planned = {scan.key for scan in plan.scans}
        keys_of_group[BASE_SET] = [key for key in shards[0].keys if key not in planned][:MAX_EXAMPLES]
    pixels = read_pixels(url, shards, [key for keys in keys_of_group.values() for key in keys])
    return [Tile(pixels[key], group, key) for group in sorted(keys_of_group) for key in keys_of_group[group]]


def dropped_tiles(plan: PackPlan, skipped: Sequence[Skipped]) -> list[Tile]:
    """Returns the first scans left out for each reason, read again from their source."""
    by_reason: dict[str, list[Skipped]] = defaultdict(list)
    for skip in skipped:
        by_reason[short_reason(skip)].append(skip)
    share = max(1, MAX_DROPPED // max(1, len(by_reason)))
    chosen = [skip for reason in sorted(by_reason) for skip in by_reason[reason][:share]][:MAX_DROPPED]
    chosen_keys = {skip.key for skip in chosen}
    scans = {scan.key: scan for scan in plan.scans if scan.key in chosen_keys}
    tiles = []
    for skip in chosen:
        try:
            pixels = decode(scans[skip.key].read())
        except Exception:  # most scans that were left out cannot be read
            pixels = None
        tiles.append(Tile(pixels, short_reason(skip), skip.key, skip.reason))
    return tiles


def read_pixels(
    url: str, shards: Iterable[CommittedShard], keys: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    """Returns key -> decoded pixels; leaves out a key that no shard has. Reads no shard's index twice."""
    remaining, pixels_of_key = set(keys), {}
    for committed in shards:
        keys_here = remaining.intersection(committed.keys) if remaining else set()
        if not keys_here:
            continue
        remaining -= keys_here
        # From the shard and not from the source, because the page has to show what was written.
        with storage.open_read(storage.join(url, committed.shard.name)) as stream:
            for entry in read_index(url, committed.shard):
                if entry.key in keys_here:
                    stream.seek(entry.image_offset)
                    pixels_of_key[entry.key] = decode(stream.read(entry.image_bytes))
    return pixels_of_key


def short_reason(skip: Skipped) -> str:
    """Returns the first words of a reason, without details that differ from scan to scan."""
    return " ".join(skip.reason.split("(")[0].split()[:4]).rstrip(",;:")


def full_reason(reason: str) -> str:
    """Returns a short reason as a table shows it. A duplicate's lacks the key of the other picture."""
    return "has the same pixels as a packed image" if reason in SAME_PICTURE else reason


def first_of_each_group(tiles: Sequence[Tile]) -> list[Tile]:
    """Returns the first MAX_EXAMPLES tiles of each group."""
    counts: dict[str, int] = defaultdict(int)
    chosen = []
    for tile in tiles:
        counts[tile.group] += 1
        if counts[tile.group] <= MAX_EXAMPLES:
            chosen.append(tile)
    return chosen


def draw_page(tiles: Sequence[Tile], captions: Sequence[str], group_rows: bool = False) -> bytes:
    """Draws thumbnails with captions, COLUMNS per row, as a JPEG; `group_rows`: each group begins a row."""
    slots: list[int] = []
    for place, tile in enumerate(tiles):
        slot = slots[-1] + 1 if slots else 0
        is_new_group = place and tile.group != tiles[place - 1].group
        slots.append(slot + (-slot % COLUMNS if group_rows and is_new_group else 0))
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
    """Returns a small RGB copy."""
    thumb = Image.fromarray(pixels).convert("RGB")
    thumb.thumbnail((WIDTH, HEIGHT))
    return thumb
