"""Frames at the edges of pictures: found, cut off on request, never taken from tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.io import storage
from shards.images.preparation import decode, trim
from shards.images.viewer_frames import frame_of, without_frame
from shards.pack import pack
from shards.report.burnt_in import count_framed
from shards.report.contact_sheet import Tile
from tests.shards.pack_inputs import pack_config, scan_pixels, write_image


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_bright_line_along_an_edge_is_a_frame(width: int) -> None:
    inside = scan_pixels(1, 96, 128)
    framed = np.full((96 + width, 128 + 2 * width), 240, np.uint8)
    framed[:96, width:-width] = inside
    assert frame_of(framed) == (0, width, width, width)
    assert (without_frame(framed) == inside).all()
    assert (trim(np.repeat(framed[..., None], 3, axis=2)) == inside[..., None]).all()


def test_tissue_borders_and_the_wedges_of_turned_scans_are_no_frames() -> None:
    for seed in range(50):
        assert frame_of(scan_pixels(seed, 96, 128)) == (0, 0, 0, 0)
    turned = scan_pixels(1, 96, 128)
    turned[:30] = 255
    turned[:, :20] = 0
    assert frame_of(turned) == (0, 0, 0, 0)


def test_a_frame_in_the_middle_of_a_dark_border_is_cut_off_with_both() -> None:
    inside = scan_pixels(2, 96, 128)
    page = np.zeros((120, 160), np.uint8)
    page[10:108, 10:140] = 250
    page[11:107, 11:139] = inside
    assert (trim(page) == inside).all()


def test_real_pictures_with_a_frame_are_counted(test_data: Path) -> None:
    folder = test_data / "octdl" / "AMD"
    names = ("amd_8046491_4.jpg", "amd_6329888_1.jpg", "amd_1047099_1.jpg")
    pixels = [decode((folder / name).read_bytes()) for name in names]
    assert frame_of(pixels[0]) == (2, 1, 0, 2)
    assert count_framed([Tile(one, "octdl", "k") for one in pixels]) == {"octdl": [2, 3]}
    others = [decode(path.read_bytes()) for path in sorted((test_data / "kermany").glob("*/*.jpeg"))]
    assert count_framed([Tile(one, "kermany", "k") for one in others]) == {"kermany": [15, 46]}


def test_card_and_page_tell_of_frames(tmp_path: Path) -> None:
    for seed in range(6):
        path = write_image(tmp_path / "clinic" / f"{seed}.png", seed)
        if seed < 2:
            pixels = np.asarray(Image.open(path)).copy()
            pixels[0] = 230
            Image.fromarray(pixels).save(path)
    pack(pack_config(tmp_path / "clinic", tmp_path / "out"))
    assert storage.read_json(f"{tmp_path}/out/manifest.json")["framed"] == {"clinic": [2, 6]}
    said = "2 of 6 checked images have a bright line along an edge"
    for name in ("DATACARD.md", "quality.html"):
        assert said in (tmp_path / "out" / name).read_text()
