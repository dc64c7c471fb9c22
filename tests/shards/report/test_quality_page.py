"""quality.html, what is burnt in, and what the encoding has lost."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.cli import main
from retfound_dist.io import storage
from retfound_dist.stream.sample_reader import decode as read_strictly
from shards.images.preparation import decode
from shards.pack import pack
from shards.report.burnt_in import find_burnt_in
from shards.report.contact_sheet import Tile
from shards.verify import verify
from tests.shards.pack_inputs import pack_config, scan_pixels, write_classes, write_image
from tests.shards.packed_samples import read_images


def tiles(count: int, marked: bool) -> list[Tile]:
    found = []
    for seed in range(count):
        pixels = scan_pixels(seed, 96, 128)
        if marked:
            pixels[:6], pixels[80:88, 100:120] = 230, 250
        found.append(Tile(pixels, "clinic", str(seed)))
    return found


def test_a_frame_and_a_logo_are_found_where_they_are() -> None:
    (found,) = find_burnt_in(tiles(20, marked=True))["clinic"]
    assert found["boxes"] == [[0, 0, 6, 128], [80, 100, 88, 120]]
    assert found["share"] == pytest.approx((6 * 128 + 8 * 20) / (96 * 128), abs=1e-5)


def test_tissue_is_not_taken_for_a_mark_and_few_images_say_nothing() -> None:
    assert find_burnt_in(tiles(20, marked=False))["clinic"][0]["boxes"] == []
    assert find_burnt_in(tiles(7, marked=True)) == {}


def test_marks_of_a_jpeg_that_was_encoded_again_are_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for tile in tiles(20, marked=True):
        Image.fromarray(tile.pixels).save(tmp_path / "images" / f"{tile.key}.png")
    out = pack(pack_config(tmp_path / "images", tmp_path / "out", image={"quality": 95})).url
    ((top, left, bottom, right), *_) = storage.read_json(f"{out}/manifest.json")["burnt_in"]["images"][0][
        "boxes"
    ]
    assert (top, left, right) == (0, 0, 128)
    assert 4 <= bottom <= 7
    assert (
        "bright and the same in all images, most of them in rows 0 to" in Path(out, "DATACARD.md").read_text()
    )


def test_the_page_shows_what_was_kept_and_what_was_not_and_loads_nothing(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "<b>odd", {"A": 20})
    shutil.copy(images / "A" / "a_001.jpg", images / "A" / "again.jpg")
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(images / "A" / "empty.png")
    (images / "A" / "broken.jpg").write_text("hi")
    page = Path(pack(pack_config(images, tmp_path / "out")).url, "quality.html").read_text()
    assert page.count("<figure>") == 12 + 3
    assert page.count("cannot be shown") == 1
    assert page.count('src="data:image/jpeg;base64,') == 14
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<b>odd" not in page
    for words in ("has the same pixels as a packed image", "is blank (levels 7 to 7)", "20 unchanged"):
        assert words in page


def test_pairs_that_look_alike_are_shown_side_by_side(tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / "images" / f"{number}.png", number, height=192, width=256)
    twin = np.array(Image.open(tmp_path / "images" / "3.png"))
    twin[50, 60] ^= 1
    Image.fromarray(twin).save(tmp_path / "images" / "twin.png")
    page = Path(pack(pack_config(tmp_path / "images", tmp_path / "out")).url, "quality.html").read_text()
    assert page.count('class="pair"') == 1
    assert re.search(r"\d of 256 bits differ", page)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_what_loses_nothing_is_read_back_to_the_pixel_by_pack_verify_and_stream(
    tmp_path: Path, kind: str
) -> None:
    images = write_classes(tmp_path / "images", {"A": 12}, "png")
    manifest = pack(pack_config(images, tmp_path / "out", image={"format": kind}))
    assert verify(manifest.url, 1) == []
    data = next(iter(read_images(tmp_path / "out", kind).items()))
    wanted = np.asarray(Image.open(images / "A" / f"{data[0][2:]}.png"))
    assert (decode(data[1]) == wanted).all()
    assert (read_strictly(data[1], grey=True) == wanted).all()
    with pytest.raises(ValueError, match="cannot be read"):
        read_strictly(data[1][: len(data[1]) // 2], grey=True)


def test_the_card_names_the_config_the_set_was_packed_with(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 3})
    words = [f"source.path={images}", f"out.url={tmp_path}/out", "out.workers=1"]
    assert main(["pack", "configs/pack_folder.toml", *words]) == 0
    assert "retfound pack pack_folder.toml out.url=URL" in (tmp_path / "out" / "DATACARD.md").read_text()
