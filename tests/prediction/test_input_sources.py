"""Every kind of images is recognized: folder, files, list, shard set."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.prediction.input_images import ShardSample
from retfound_dist.prediction.input_sources import list_inputs
from tests.evaluate.inputs import class_folders, image_bytes, shard_set, write_listing
from tests.shards.device_files import reflectance, scan_stack, write_all, write_vol


def test_files_keep_their_paths_as_keys_and_device_files_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(image_bytes(0, 1))
        write_vol(tmp_path / name / "scan.vol", reflectance(scan_stack(2)))
    listing = list_inputs(["a/x.jpg", "./b/x.jpg", "a/scan.vol", "b/scan.vol"])
    keys = [one.key for one in listing.images]
    assert keys[:2] == ["a/x.jpg", "b/x.jpg"]
    assert len(set(keys)) == 6
    assert f"{keys[2].split('_')[0]}.vol is a/scan.vol" in listing.notes
    first = listing.images[0].content
    assert callable(first)
    assert first() == image_bytes(0, 1)


def test_device_files_of_every_format_are_read_alone(tmp_path: Path) -> None:
    files = write_all(tmp_path)
    for path in files.values():
        listing = list_inputs([str(path)])
        assert listing.images
        assert all(one.facts.slice is not None for one in listing.images)
        assert all(callable(one.content) and one.content() is not None for one in listing.images)


def test_a_list_may_name_files_anywhere_and_keeps_its_order(tmp_path: Path) -> None:
    class_folders(tmp_path / "far", each=1)
    table = tmp_path / "lists"
    table.mkdir()
    write_listing(
        table,
        [
            {"file": "../far/MH/MH_0.jpg", "patient": "p", "label": "NEW"},
            {"file": "../far/CSR/CSR_0.jpg", "patient": "q", "label": ""},
        ],
    )
    listing = list_inputs([str(table / "manifest.csv")])
    assert [one.key for one in listing.images] == ["../far/MH/MH_0.jpg", "../far/CSR/CSR_0.jpg"]
    assert [one.facts.patient for one in listing.images] == ["p", "q"]
    assert listing.labels == ("NEW",)
    assert listing.labels_are_certain
    content = listing.images[0].content
    assert callable(content)
    assert content() == image_bytes(1, 0)


def test_a_shard_set_is_listed_without_reading_its_shards(tmp_path: Path) -> None:
    samples: list[dict[str, str | None]] = [{"key": f"k{n}", "label": None} for n in range(3)]
    root = shard_set(tmp_path / "shards", samples)
    (root / "oct-000000.tar").unlink()
    listing = list_inputs([str(root)])
    assert [one.key for one in listing.images] == ["k0", "k1", "k2"]
    assert all(isinstance(one.content, ShardSample) for one in listing.images)


def test_mistakes_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=1)
    file = str(tmp_path / "set/MH/MH_0.jpg")
    with pytest.raises(DataError, match="does not exist: give a folder"):
        list_inputs([str(tmp_path / "none")])
    with pytest.raises(DataError, match="does not exist: give a folder"):
        list_inputs([file, str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="give it alone"):
        list_inputs([file, str(tmp_path / "set")])
    with pytest.raises(DataError, match=r"keys of .* are of two images"):
        list_inputs([file, file])
