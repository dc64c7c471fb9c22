"""Images are prepared as the evaluation prepares its test part, in any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import DataError, ManifestError
from retfound_dist.evaluate.pixels.gray_pixels import decode_grey, resize_for_testing
from retfound_dist.prediction.input_images import InputImage
from retfound_dist.prediction.input_reading import read_identities, read_images, reason_of
from retfound_dist.prediction.input_sources import list_inputs
from shards.sources.folders.folder import FileReader
from tests.evaluate.inputs import class_folders, image_bytes, shard_set
from tests.shards.device_files import reflectance, scan_stack, write_vol


@pytest.mark.parametrize("workers", [1, 2])
def test_pixels_are_those_of_an_evaluations_test_part_in_order(workers: int, tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=25)
    (tmp_path / "set/MH/MH_3.jpg").write_bytes(b"no image")
    images = list_inputs([str(tmp_path / "set")]).images
    results = list(read_images(images, workers, 28, "bicubic"))
    assert [image.key for image, _ in results] == [image.key for image in images]
    for image, prepared in results:
        if image.key == "MH/MH_3.jpg":
            assert prepared.pixels is None
            assert prepared.reason.startswith("is not a JPEG, PNG")
            continue
        expected = resize_for_testing(decode_grey((tmp_path / "set" / image.key).read_bytes()), 28)
        assert prepared.pixels is not None
        np.testing.assert_array_equal(prepared.pixels, expected)
        assert not prepared.reason
    assert read_identities(images, 1) == [prepared.identity for _, prepared in results]


def test_slices_of_device_files_are_resized_from_the_levels_that_the_maker_shows(tmp_path: Path) -> None:
    stack = scan_stack(3)
    write_vol(tmp_path / "scan.vol", reflectance(stack))
    images = list_inputs([str(tmp_path / "scan.vol")]).images
    for place, (_, prepared) in enumerate(read_images(images, 1, 28, "bicubic")):
        assert prepared.pixels is not None
        difference = prepared.pixels.astype(int) - resize_for_testing(stack[place], 28)
        assert abs(difference).max() <= 1


def test_samples_of_shards_have_the_facts_of_their_json(tmp_path: Path) -> None:
    samples: list[dict[str, str | None]] = [
        {"key": f"k{n}", "label": "MH", "patient": f"p{n}", "eye": "L", "source": "s"} for n in range(3)
    ]
    root = shard_set(tmp_path / "shards", samples)
    tree = json.loads((root / "manifest.json").read_text())
    cases: list[tuple[dict[str, object], str]] = [({}, ""), ({"s": {}, "t": {}}, "s/")]
    for sources, prefix in cases:
        (root / "manifest.json").write_text(json.dumps(tree | {"sources": sources}))
        images = list_inputs([str(root)]).images
        results = list(read_images(images, 1, 28, "bicubic"))
        assert [image.facts.patient for image, _ in results] == [f"{prefix}p{n}" for n in range(3)]
        assert all(image.facts.eye == "L" for image, _ in results)
        for n, (_, prepared) in enumerate(results):
            expected = resize_for_testing(decode_grey(image_bytes(1, n)), 28)
            np.testing.assert_array_equal(prepared.pixels, expected)


def test_a_changed_shard_is_refused_by_name(tmp_path: Path) -> None:
    root = shard_set(tmp_path / "shards", [{"key": "k0", "label": None}])
    data = bytearray((root / "oct-000000.tar").read_bytes())
    data[-3] ^= 1
    (root / "oct-000000.tar").write_bytes(data)
    with pytest.raises(ManifestError, match=r"oct-000000\.tar differs from the manifest"):
        list(read_images(list_inputs([str(root)]).images, 1, 28, "bicubic"))


def test_an_identity_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = InputImage("a", FileReader(str(tmp_path), "a.jpg"))
    identities = set()
    for data in (image_bytes(0, 1), image_bytes(0, 2), b"x", None):
        path.unlink() if data is None else path.write_bytes(data)
        (identity,) = read_identities([image], 1)
        identities.add(identity)
    assert len(identities) == 4


def test_a_reason_is_one_line_that_every_file_can_hold() -> None:
    text = reason_of(DataError("caf\udce9.jpg is damaged\nsecond line"))
    assert text == r"caf\udce9.jpg is damaged"
    assert reason_of(ValueError("")) == "cannot be read (ValueError)"
