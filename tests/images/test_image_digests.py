"""By what images are known again, from what packing keeps of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import ManifestError
from retfound_dist.formats.shard_set import Manifest, read_index, read_manifest
from retfound_dist.images import image_digests
from retfound_dist.images.image_digests import (
    digests_of_image,
    file_digest,
    grey_digest,
    have_known_digest,
    part_digests,
    pixel_digest,
    set_digests,
)
from retfound_dist.io import storage
from retfound_dist.stream.sample_reader import decode
from shards.pack import pack
from shards.write.committed_shards import read_record
from tests.shards.pack_inputs import pack_config, scan_pixels, write_image


def write_source(root: Path) -> Path:
    """Nine grey PNGs of three classes and two of colour."""
    for number in range(9):
        write_image(root / "ABC"[number % 3] / f"{number}.png", number)
    for number in range(2):
        colour = np.stack([scan_pixels(50 + number), scan_pixels(60), scan_pixels(70)], axis=2)
        Image.fromarray(colour).save(root / "A" / f"colour_{number}.png")
    return root


def packed(root: Path, **image: object) -> Manifest:
    return pack(pack_config(write_source(root / "images"), root / "set", image=image))


def known(manifest: Manifest) -> image_digests.Digests:
    return set_digests(manifest).sorted_unique()


@pytest.mark.parametrize(
    "image",
    [
        {"format": "jpg", "quality": 95},
        {"format": "png"},
        {"max_height": 40},
        {"trim": True},
        {"format": "webp"},
    ],
    ids=str,
)
def test_source_files_are_known_again_however_they_were_packed(tmp_path: Path, image: dict) -> None:
    manifest = packed(tmp_path, **image)
    files = [path.read_bytes() for path in sorted((tmp_path / "images").rglob("*.png"))]
    assert have_known_digest(
        [digests_of_image(data, decode(data, grey=True)) for data in files], known(manifest)
    ).all()
    saved_again = []
    for data in files:  # other bytes, the same pixels
        buffer = io.BytesIO()
        Image.fromarray(decode(data, grey=True)).save(buffer, "BMP")
        saved_again.append(buffer.getvalue())
    assert have_known_digest(
        [digests_of_image(data, decode(data, grey=True)) for data in saved_again], known(manifest)
    ).all()
    other = write_image(tmp_path / "other.png", 900).read_bytes()
    assert not have_known_digest([digests_of_image(other, decode(other, grey=True))], known(manifest)).any()


def test_packed_files_are_known_again_and_so_is_a_set_packed_anew_with_other_settings(tmp_path: Path) -> None:
    manifest = packed(tmp_path / "one")
    shard = manifest.shards[0]
    tar = (tmp_path / "one" / "set" / shard.name).read_bytes()
    stored = [tar[e.image_offset : e.image_offset + e.image_bytes] for e in read_index(manifest.url, shard)]
    assert have_known_digest(
        [digests_of_image(data, decode(data, grey=True)) for data in stored], known(manifest)
    ).all()
    other = packed(tmp_path / "two", format="png", max_height=32)
    rows = [tuple(row) for row in set_digests(other).digests.tolist()]
    assert len(rows) == 11
    assert have_known_digest(rows, known(manifest)).all()


def test_a_part_s_images_are_its_own(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / "images" / ("train" if number < 8 else "test") / "A" / f"{number}.png", number)
    manifest = pack(pack_config(tmp_path / "images", tmp_path / "set"))
    paths = sorted((tmp_path / "images").rglob("*.png"))
    rows = [digests_of_image(p.read_bytes(), decode(p.read_bytes(), grey=True)) for p in paths]
    found = have_known_digest(rows, part_digests(manifest, "train").sorted_unique())
    assert [path.parent.parent.name == "train" for path in paths] == found.tolist()
    assert len(part_digests(manifest, "train").digests) == 8


def test_an_index_from_before_sources_were_kept_says_so(tmp_path: Path) -> None:
    manifest = packed(tmp_path)
    assert set_digests(manifest).level == image_digests.SOURCES
    where = Path(manifest.url) / manifest.shards[0].index.name
    tree = json.loads(where.read_text())
    for drop, level in ((("source_files", "source_pixels"), 2), (("digests",), 1)):
        for name in drop:
            del tree[name]
        where.write_text(json.dumps(tree))
        manifest_tree = storage.read_json(f"{manifest.url}/manifest.json")
        info = storage.file_info(str(where))
        manifest_tree["shards"][0]["index"] |= {"bytes": info.bytes, "sha256": info.sha256}
        storage.write_json(f"{manifest.url}/manifest.json", manifest_tree)
        again = read_manifest(manifest.url)
        assert set_digests(again).level == level
        assert len(set_digests(again).digests) == 11
        if level == 2:
            assert read_record(again.url, again.shards[0]).source_digests is None
    where.write_text("{}")
    with pytest.raises(ManifestError, match="differs from the manifest"):
        set_digests(read_manifest(manifest.url))


def test_nothing_is_known_by_a_digest_that_is_not_there() -> None:
    rows = [(0, 5), (0, 0), (), (7,)]
    assert have_known_digest(rows, np.array([5, 9], np.uint64)).tolist() == [True, False, False, False]
    assert have_known_digest(rows, np.zeros(0, np.uint64)).tolist() == [False] * 4
    assert have_known_digest([], np.array([5], np.uint64)).tolist() == []


def test_digests_tell_pixels_shapes_and_files_apart() -> None:
    pixels = scan_pixels(1)
    assert grey_digest(pixels) == pixel_digest(pixels)
    assert grey_digest(np.repeat(pixels[:, :, None], 3, axis=2)) == pixel_digest(pixels)
    assert pixel_digest(pixels.reshape(64, 48)) != pixel_digest(pixels)
    assert file_digest(b"a") != file_digest(b"b")
