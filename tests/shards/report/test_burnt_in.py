"""Marks that are burnt into pictures: in grey and in colour, in sets of one size and of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.pack import pack
from shards.report.burnt_in import boxes_in, count_not_compared, find_burnt_in
from shards.report.contact_sheet import Tile
from tests.shards.pack_inputs import pack_config, scan_pixels


def sizes(count: int) -> list[tuple[int, int]]:
    """No two alike."""
    return [(96 + 3 * number, 128 + 5 * number) for number in range(count)]


def tiles(shapes: list[tuple[int, int]], mark: str = "", colour: bool = False) -> list[Tile]:
    found = []
    for seed, (height, width) in enumerate(shapes):
        pixels = scan_pixels(seed, height, width)
        if mark == "bottom right":
            pixels[-20:-10, -40:-10] = 220
        elif mark == "scaled":
            pixels[:, round(0.45 * width) : round(0.55 * width)] = 220
        shown = np.stack([pixels // 2, pixels, pixels // 3], axis=-1) if colour else pixels
        found.append(Tile(shown, "clinic", str(seed)))
    return found


def test_marks_in_colour_are_found() -> None:
    (found,) = find_burnt_in(tiles([(96, 128)] * 12, "bottom right", colour=True))["clinic"]
    assert (found["how"], found["boxes"]) == ("size", [[76, 88, 86, 118]])


def test_a_mark_in_a_corner_of_pictures_of_many_sizes_is_found_there() -> None:
    shapes = sizes(12)
    found = find_burnt_in(tiles(shapes, "bottom right"))["clinic"]
    corner = next(one for one in found if one["how"] == "bottom right")
    assert corner["images"] == 12
    for height, width in shapes:
        assert boxes_in(corner, height, width) == [[height - 20, width - 40, height - 10, width - 10]]


def test_a_mark_that_was_scaled_with_the_pictures_is_found() -> None:
    found = find_burnt_in(tiles(sizes(12), "scaled"))["clinic"]
    scaled = next(one for one in found if one["how"] == "scaled")
    ((top, left, bottom, right),) = boxes_in(scaled, 200, 1000)
    assert (top, bottom) == (0, 200)
    assert 440 <= left <= 480
    assert 520 <= right <= 560


def test_tissue_of_many_sizes_is_no_mark_and_is_said_to_be_compared() -> None:
    (found,) = find_burnt_in(tiles(sizes(30)))["clinic"]
    assert (found["how"], found["images"], found["boxes"]) == ("many sizes", 30, [])


def test_every_size_with_enough_images_is_compared_and_the_rest_is_counted() -> None:
    some = tiles([(96, 128)] * 10 + [(64, 128)] * 9 + [(50, 50)] * 3, "bottom right")
    assert [(one["images"], one["height"]) for one in find_burnt_in(some)["clinic"]] == [(10, 96), (9, 64)]
    assert count_not_compared(some) == {"clinic": [3, 22]}
    assert count_not_compared(tiles(sizes(5))) == {"clinic": [5, 5]}
    assert count_not_compared(tiles(sizes(12))) == {}


def test_one_tiny_picture_does_not_hide_a_mark() -> None:
    some = tiles([*sizes(12), (40, 40)], "bottom right")
    assert any(one["how"] == "bottom right" for one in find_burnt_in(some)["clinic"])
    assert count_not_compared(some) == {"clinic": [1, 13]}


@pytest.mark.parametrize("colour", [False, True])
def test_card_and_page_say_what_was_compared_and_where_nothing_was(tmp_path: Path, colour: bool) -> None:
    (tmp_path / "many").mkdir()
    for tile in tiles(sizes(12), "bottom right", colour):
        Image.fromarray(tile.pixels).save(tmp_path / "many" / f"{tile.key}.png")
    pack(pack_config(tmp_path / "many", tmp_path / "out", image={"format": "png"}))
    card, page = ((tmp_path / "out" / name).read_text() for name in ("DATACARD.md", "quality.html"))
    assert "a mark in 12 images of many sizes, 128 x 96 pixels at the bottom right of each: " in card
    assert "12 images of many sizes, 128 x 96 pixels at the bottom right of each" in page
    assert 'alt="an image with its marks outlined"' in page
    (tmp_path / "few").mkdir()
    for tile in tiles(sizes(3)):
        Image.fromarray(tile.pixels).save(tmp_path / "few" / f"{tile.key}.png")
    pack(pack_config(tmp_path / "few", tmp_path / "out2"))
    card, page = ((tmp_path / "out2" / name).read_text() for name in ("DATACARD.md", "quality.html"))
    assert "- few: 3 of 3 checked images were not compared: too few of similar size" in card
    assert "3 of 3 checked images were not compared: too few of similar size" in page
