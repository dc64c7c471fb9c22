"""Pages of pictures: examples of each source, and pictures that were left out, with the reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from shards.append import read_base
from shards.images.preparation import decode
from shards.pack import pack
from shards.report.contact_sheet import (
    COLUMNS,
    GAP,
    Tile,
    draw_page,
    first_of_each_group,
    read_pixels,
    short_reason,
)
from shards.write.packed_sample import Skipped
from tests.shards.pack_inputs import pack_config, scan_pixels, write_image


def test_the_pages_of_pictures_stand_beside_the_card(packed: Path) -> None:
    kept, dropped = (Image.open(packed / name) for name in ("examples.jpg", "dropped.jpg"))
    assert kept.width == dropped.width
    assert kept.height == 2 * dropped.height - 6
    assert np.asarray(kept.convert("L")).std() > 20


def test_a_set_that_kept_everything_has_no_page_of_what_was_dropped(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "1.png")
    out = Path(pack(pack_config(tmp_path / "images", tmp_path / "out")).url)
    assert not (out / "dropped.jpg").exists()
    assert "## Left out\n\nNothing." in (out / "DATACARD.md").read_text()


def test_samples_are_read_back_by_their_keys_from_whichever_shard(packed: Path) -> None:
    base = read_base(str(packed))
    keys = [done.keys[-1] for done in base.shards]
    assert len(keys) > 1
    pixels = read_pixels(str(packed), base.shards, [*keys, "nobody"])
    assert pixels.keys() == set(keys)
    for key in keys:
        file = packed.parent / "images" / key[0] / f"{key[2:]}.jpg"
        assert (pixels[key] == decode(file.read_bytes())).all()


def test_each_group_begins_a_row_where_groups_stand_apart() -> None:
    tiles = [Tile(scan_pixels(seed), group, str(seed)) for seed, group in enumerate("aab")]
    captions = ["", "", ""]
    one, two = (
        Image.open(io.BytesIO(draw_page(tiles, captions, group_rows=apart))) for apart in (False, True)
    )
    assert one.width == two.width
    assert two.height == 2 * one.height - GAP
    assert draw_page([Tile(None, "a", "k")], ["cannot be read"])


def test_reasons_are_grouped_without_what_differs_from_scan_to_scan() -> None:
    reasons = ("is blank (levels 7 to 7)", "is blank (levels 3 to 4)", "is a broken JPEG, Premature end")
    assert [short_reason(Skipped("k", "o", reason)) for reason in reasons] == [
        "is blank",
        "is blank",
        "is a broken JPEG",
    ]


def test_a_page_of_examples_shows_no_more_than_two_rows_of_a_group() -> None:
    tiles = [Tile(None, "a", str(number)) for number in range(20)] + [Tile(None, "b", "x")]
    shown = first_of_each_group(tiles)
    assert [tile.key for tile in shown] == [*map(str, range(2 * COLUMNS)), "x"]
