from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import DataError
from retfound_dist.images.image_digests import pixel_digest
from shards.images.near_duplicates import HASH_BYTES, MAX_DIFFERING_BITS, difference_hash, near_pairs
from shards.images.preparation import check_levels, count_levels
from shards.pack import pack
from tests.shards.pack_inputs import file_bytes, pack_config, scan_pixels, write_classes, write_image


def test_equal_pixels_in_another_file_are_kept_once_and_named(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 6})
    pixels = np.asarray(Image.open(images / "A" / "a_000.jpg"))
    Image.fromarray(pixels).save(images / "A" / "copy.png")
    manifest = pack(
        pack_config(images, tmp_path / "out", out={"bad_sample_budget": 0}, image={"format": "png"})
    )
    assert manifest.samples == 6
    (skip,) = manifest.skipped
    assert {skip["key"], skip["reason"].removeprefix("is the same picture as ")} == {"A_a_000", "A_copy"}


def test_a_duplicate_is_known_again_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_classes(tmp_path / "images", {"A": 30})
    for number in range(10):
        shutil.copy(images / "A" / f"a_{number:03d}.jpg", images / "A" / f"copy_{number}.jpg")
    whole = pack(pack_config(images, tmp_path / "whole"))
    assert (whole.samples, len(whole.skipped)) == (30, 10)
    config = pack_config(images, tmp_path / "again")

    def stop_after(done: int, total: int) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(config, progress=stop_after)
    pack(config)
    assert file_bytes(tmp_path / "again") == file_bytes(tmp_path / "whole")


def test_near_duplicates_of_other_patients_are_reported_and_kept(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number in range(8):
        write_image(root / "A" / f"{number}.png", number, height=192, width=256)
    twin = Image.open(root / "A" / "3.png").resize((192, 144))
    twin.save(root / "A" / "twin.jpg", quality=70)
    manifest = pack(pack_config(root, tmp_path / "out"))
    from retfound_dist.io import storage

    near = storage.read_json(f"{manifest.url}/manifest.json")["near_duplicates"]
    assert manifest.samples == 9
    assert (near["pairs"], sorted(near["first"][0][:2])) == (1, ["A_3", "A_twin"])


def test_pictures_of_one_patient_may_look_alike() -> None:
    looks = difference_hash(scan_pixels(1)) * 2
    assert list(near_pairs(looks, np.array([4, 4]))) == []
    assert list(near_pairs(looks, np.array([4, 5]))) == [(0, 1, 0)]


def test_every_pair_within_the_bound_is_found_and_none_beyond() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (60, HASH_BYTES), dtype=np.uint8)
    for place in range(1, 30):
        bits = np.unpackbits(table[0])
        bits[rng.choice(256, place, replace=False)] ^= 1
        table[place] = np.packbits(bits)
    found = {(a, b) for a, b, _ in near_pairs(table.tobytes(), np.arange(60))}
    bits = np.unpackbits(table, axis=1)
    wanted = {
        (a, b)
        for a in range(60)
        for b in range(a + 1, 60)
        if (bits[a] != bits[b]).sum() <= MAX_DIFFERING_BITS
    }
    assert found == wanted
    assert len(wanted) >= MAX_DIFFERING_BITS


def test_a_digest_tells_shapes_and_single_levels_apart() -> None:
    pixels = scan_pixels(1)
    other = pixels.copy()
    other[5, 5] ^= 1
    assert pixel_digest(pixels) == pixel_digest(pixels.copy())
    assert len({pixel_digest(pixels), pixel_digest(other), pixel_digest(pixels.reshape(64, 48))}) == 3


def test_a_saturated_scan_is_kept_out_and_a_white_frame_is_not() -> None:
    pixels = scan_pixels(1)
    pixels[:20] = 255
    assert (check_levels(pixels) == count_levels(pixels)).all()
    pixels[:34] = 255
    with pytest.raises(DataError, match=r"is saturated \(7\d % of it at level 250 or above\)"):
        check_levels(pixels)


def test_copies_that_were_scaled_and_encoded_again_look_alike(test_data: Path) -> None:
    within = 0
    files = sorted((test_data / "octdl").glob("*/*.jpg"))[::40]
    for file in files:
        image = Image.open(file).convert("L")
        buffer = io.BytesIO()
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(buffer, "JPEG", quality=70)
        pair = [np.frombuffer(difference_hash(np.asarray(i)), np.uint8) for i in (image, Image.open(buffer))]
        within += int(np.bitwise_count(pair[0] ^ pair[1]).sum()) <= MAX_DIFFERING_BITS
    assert within / len(files) > 0.9


@pytest.mark.parametrize("end", ["jpg", "png"])
def test_frames_are_trimmed_on_request_only(tmp_path: Path, end: str) -> None:
    framed = np.full((88, 124), 255, np.uint8)  # so much white is saturated, were it not cut off
    framed[16:64, 40:104] = scan_pixels(4)
    (tmp_path / "images").mkdir()
    Image.fromarray(framed).save(
        tmp_path / "images" / f"1.{end}", **({"quality": 100} if end == "jpg" else {})
    )
    image = {"trim": True, "format": "png"}
    kept = pack(pack_config(tmp_path / "images", tmp_path / "trimmed", image=image)).image
    assert 48 <= kept["median_height"] <= 64
    assert 64 <= kept["median_width"] <= 80
    framed[framed == 255] = 240
    Image.fromarray(framed).save(tmp_path / "images" / f"1.{end}")
    whole = pack(pack_config(tmp_path / "images", tmp_path / "whole")).image
    assert (whole["median_height"], whole["median_width"]) == (88, 124)
