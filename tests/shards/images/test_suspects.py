"""Pictures that are probably no B-scan: which are suspected, which are not, what is done with them."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from retfound_dist.formats.shard_set import read_manifest
from shards.append import append
from shards.commands import pack_command
from shards.images.preparation import decode
from shards.images.suspects import count_suspects, suspect_lines, suspect_of
from shards.pack import pack
from tests.shards.pack_inputs import pack_config, scan_pixels

Pixels = NDArray[np.uint8]


def scan(seed: int = 0, height: int = 240, width: int = 360) -> Pixels:
    return scan_pixels(seed, height, width)


def en_face(seed: int = 0, side: int = 240) -> Pixels:
    """Vessels in all directions on an uneven ground, as a near-infrared image shows them."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 255, (side, side), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(6)
    )
    values = np.asarray(ground, np.float64)
    values = 110 + 400 * (values - values.mean()) / 255 + rng.normal(0, 6, (side, side))
    y, x = np.mgrid[:side, :side]
    for angle in np.arange(0.2, np.pi, np.pi / 8):
        away = np.abs((x - side / 2) * np.sin(angle) + (y - side / 2) * np.cos(angle) + rng.uniform(-60, 60))
        values[away < 3] -= 60
    return np.clip(values, 0, 255).astype(np.uint8)


def mask(seed: int = 0) -> Pixels:
    smooth = np.asarray(Image.fromarray(scan(seed)).filter(ImageFilter.GaussianBlur(4)))
    return (smooth > 60).astype(np.uint8) * 120 + (smooth > 120) * np.uint8(120)


def overlay(seed: int = 0) -> Pixels:
    """A scan with two coloured lines, 1.2 % of its pixels or fewer."""
    colour = np.repeat(scan(seed)[..., None], 3, axis=2)
    colour[100:101], colour[150:151] = (255, 0, 0), (0, 255, 0)
    return colour


def composite(seed: int = 0) -> Pixels:
    return np.concatenate([en_face(seed), scan(seed)], axis=1)


def photo(seed: int = 0) -> Pixels:
    grey = en_face(seed)[..., None].astype(int)
    return np.clip(grey * [1.0, 0.5, 0.2] + [60, 20, 0], 0, 255).astype(np.uint8)


def as_jpeg(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return np.asarray(Image.open(buffer))


def judged(pixels: Pixels) -> str | None:
    return suspect_of(pixels, pixels)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (scan, None),
        (mask, "mask"),
        (overlay, "overlay"),
        (composite, "composite"),
        (en_face, "nir"),
        (photo, "photo"),
    ],
)
def test_each_kind_is_suspected_as_png_and_as_jpeg(make: Any, kind: str | None, seed: int) -> None:
    assert judged(make(seed)) == kind
    assert judged(as_jpeg(make(seed))) == kind


def test_masks_of_class_numbers_and_of_colours_are_masks() -> None:
    numbers = mask() // 120
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)[numbers]
    assert judged(numbers) == judged(colours) == "mask"


def test_a_photograph_beside_the_scan_is_a_composite_in_colour_too() -> None:
    wide = np.concatenate([photo(), np.repeat(scan()[..., None], 3, axis=2)], axis=1)
    assert judged(wide) == "composite"
    gap = np.concatenate([en_face(), np.zeros((240, 6), np.uint8), scan()], axis=1)
    assert judged(gap) == "composite"


def test_small_dark_tilted_and_turned_scans_are_not_suspected() -> None:
    assert judged(scan_pixels(0, 48, 64)) is None
    assert judged(scan() // 4) is None
    tilted = Image.fromarray(scan()).rotate(20, fillcolor=255)
    assert judged(np.asarray(tilted)) is None
    assert judged(scan()[:, ::-1]) is None


def test_coloured_lines_are_seen_though_the_picture_is_stored_grey(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(overlay()).save(tmp_path / "in" / "lines.png")
    Image.fromarray(scan(1)).save(tmp_path / "in" / "scan.png")
    assert decode((tmp_path / "in" / "lines.png").read_bytes()).ndim == 2
    manifest = pack(pack_config(tmp_path / "in", tmp_path / "out"))
    assert manifest.suspects["in"]["overlay"] == {"images": 1, "of": 2, "first": ["lines"]}


def test_real_scans_of_two_devices_are_seldom_suspected(test_data: Path) -> None:
    files = sorted((test_data / "octdl").glob("*/*.jpg"))[::4] + sorted(
        (test_data / "kermany").glob("*/*.jpeg")
    )
    found = Counter(judged(decode(path.read_bytes())) for path in files)
    assert found[None] >= 0.99 * len(files)
    assert set(found) <= {None, "composite"}


def test_real_en_face_images_are_suspected(test_data: Path) -> None:
    reader = pytest.importorskip("eyepy.io.he.vol_reader")
    for name in ("valid.vol", "Willis_B_716_0.vol"):
        en_face_image = np.asarray(
            reader.HeVolReader(str(test_data / "device" / name)).localizer.data, np.uint8
        )
        assert judged(en_face_image) == "nir"
        real = decode(sorted((test_data / "kermany" / "CNV").iterdir())[0].read_bytes())
        beside = Image.fromarray(en_face_image).resize((real.shape[0], real.shape[0]))
        assert judged(np.concatenate([np.asarray(beside), real], axis=1)) == "composite"
    assert judged(decode((test_data / "device" / "heyex_xml" / "NIR1.tif").read_bytes())) == "nir"


def mixed(root: Path) -> Path:
    root.mkdir()
    for seed in range(12):
        Image.fromarray(scan(seed)).save(root / f"scan{seed}.png")
    for make in (mask, overlay, composite, en_face):
        for seed in range(2):
            Image.fromarray(make(seed)).save(root / f"{make.__name__}{seed}.png")
    return root


def test_suspects_are_kept_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = mixed(tmp_path / "in")
    (tmp_path / "pack.toml").write_text(
        f"[source]\npath = '{source}'\n[out]\nurl = '{tmp_path}/out'\nworkers = 1\n"
    )
    assert pack_command(str(tmp_path / "pack.toml"), []) == 0
    out = capsys.readouterr().out
    manifest = read_manifest(f"{tmp_path}/out")
    assert manifest.samples == 20
    kinds = {kind: found["images"] for kind, found in manifest.suspects["in"].items()}
    assert kinds == {"composite": 2, "mask": 2, "nir": 2, "overlay": 2}
    card, page = ((tmp_path / "out" / name).read_text() for name in ("DATACARD.md", "quality.html"))
    for line in suspect_lines(manifest.suspects):
        assert f"suspected: {line}" in out
        assert line in card
    assert "image.leave_out_suspects" in out
    assert "in: 2 of 20 images look like a mask (mask)" in page
    assert "<figcaption>mask0</figcaption>" in page


def test_suspects_are_left_out_on_request_by_name_and_outside_the_budget(tmp_path: Path) -> None:
    options = {"out": {"bad_sample_budget": 0}, "image": {"leave_out_suspects": ["mask", "nir"]}}
    manifest = pack(pack_config(mixed(tmp_path / "in"), tmp_path / "out", **options))
    assert manifest.samples == 16
    assert {row["origin"]: row["reason"] for row in manifest.skipped} == {
        **{f"mask{n}.png": "looks like a mask (few uniform levels)" for n in range(2)},
        **{f"en_face{n}.png": "looks like a near-infrared image (grey, without layers)" for n in range(2)},
    }
    assert set(manifest.suspects["in"]) == {"composite", "overlay"}


def test_the_setting_unset_leaves_the_recipe_of_older_sets_as_it_was(tmp_path: Path) -> None:
    manifest = pack(pack_config(mixed(tmp_path / "in"), tmp_path / "out"))
    assert "leave_out_suspects" not in manifest.recipe["image"]


def test_a_pack_that_goes_on_counts_suspects_of_its_earlier_shards(tmp_path: Path) -> None:
    config = pack_config(mixed(tmp_path / "in"), tmp_path / "out")
    whole = pack(config)
    assert len(whole.shards) > 2
    before = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").unlink()
    (tmp_path / "out" / whole.shards[-1].index.name).unlink()
    (tmp_path / "out" / "packing.json").write_text("{}")
    assert pack(config).suspects == whole.suspects == before["suspects"]


def test_an_appended_source_keeps_the_suspects_of_the_set(tmp_path: Path) -> None:
    pack(pack_config(mixed(tmp_path / "in"), tmp_path / "out"))
    (tmp_path / "more").mkdir()
    Image.fromarray(en_face(9)).save(tmp_path / "more" / "x.png")
    both = append(pack_config(tmp_path / "more", tmp_path / "out")).suspects
    assert both["in"]["mask"]["images"] == 2
    assert both["more"] == {"nir": {"images": 1, "of": 1, "first": ["more-x"]}}


def test_in_a_set_of_photographs_colour_is_not_suspected() -> None:
    shards = [{"clinic": {"photo": (8, ["a"]), "mask": (1, ["b"])}}, {"clinic": {"photo": (1, ["c"])}}]
    assert count_suspects(shards, {"clinic": 10}) == {
        "clinic": {"mask": {"images": 1, "of": 10, "first": ["b"]}}
    }
    few = count_suspects(shards, {"clinic": 100})["clinic"]["photo"]
    assert few == {"images": 9, "of": 100, "first": ["a", "c"]}
