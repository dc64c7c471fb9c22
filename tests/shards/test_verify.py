from __future__ import annotations

import json
from pathlib import Path

import pytest
from pack_inputs import pack_config, write_classes

from retfound_dist import storage
from retfound_dist.errors import ManifestError
from retfound_dist.shardset import read_index, read_manifest
from shards.commands import verify_command
from shards.pack import pack
from shards.verify import verify


@pytest.fixture
def shard_set(tmp_path: Path) -> Path:
    pack(pack_config(write_classes(tmp_path / "images", {"A": 12, "B": 8}), tmp_path / "out"))
    return tmp_path / "out"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_set_has_no_faults(shard_set: Path, workers: int) -> None:
    assert verify(str(shard_set), workers) == []


def test_one_flipped_byte_anywhere_names_its_shard_and_exits_1(
    shard_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = shard_set / "oct-000001.tar"
    sound = tar.read_bytes()
    for place in (0, 600, len(sound) // 2, len(sound) - 1):
        flip(tar, place)
        assert verify_command(str(shard_set), workers=1) == 1
        assert "oct-000001.tar differs from the manifest's sha256" in capsys.readouterr().out
        tar.write_bytes(sound)
    assert verify_command(str(shard_set), workers=1) == 0
    assert "20 images" in capsys.readouterr().out


def test_a_broken_image_is_named_by_its_key(shard_set: Path) -> None:
    manifest = json.loads((shard_set / "manifest.json").read_text())
    shard = read_manifest(str(shard_set)).shards[0]
    entry = read_index(str(shard_set), shard)[0]
    tar = bytearray((shard_set / shard.name).read_bytes())
    tar[entry.image_offset + 700 : entry.image_offset + 900] = bytes(200)
    (shard_set / shard.name).write_bytes(tar)
    manifest["shards"][0]["sha256"] = storage.file_info(str(shard_set / shard.name)).sha256
    storage.write_json(f"{shard_set}/manifest.json", manifest)
    (fault,) = verify(str(shard_set), 1)
    assert fault.startswith(f"oct-000000.tar: {entry.key} is a broken JPEG")


def test_an_image_that_was_changed_in_a_shard_whose_sha256_was_put_right_is_named(shard_set: Path) -> None:
    """It decodes and has its size: only the digest that the index has of its own bytes can tell."""
    manifest = json.loads((shard_set / "manifest.json").read_text())
    shard = read_manifest(str(shard_set)).shards[1]
    entry = read_index(str(shard_set), shard)[2]
    tar = bytearray((shard_set / shard.name).read_bytes())
    table = tar.index(b"\xff\xdb", entry.image_offset) + 5  # a step of the JPEG's quantisation: paler pixels
    tar[table] += 1
    (shard_set / shard.name).write_bytes(tar)
    manifest["shards"][1]["sha256"] = storage.file_info(str(shard_set / shard.name)).sha256
    storage.write_json(f"{shard_set}/manifest.json", manifest)
    assert verify(str(shard_set), 1) == [f"oct-000001.tar: {entry.key} differs from the sha256 in the index"]


def test_missing_short_and_foreign_files_are_named(shard_set: Path) -> None:
    (shard_set / "oct-000000.tar").unlink()
    (shard_set / "oct-000001.idx").unlink()
    data = (shard_set / "oct-000002.tar").read_bytes()
    (shard_set / "oct-000002.tar").write_bytes(data[:-10240])
    (shard_set / "copy.tar").write_bytes(data)
    faults = verify(str(shard_set), 1)
    assert len(faults) == 4
    assert "copy.tar is not in manifest.json" in faults
    assert "oct-000000.tar is missing" in faults
    assert "oct-000001.idx is missing or cannot be read" in faults
    assert any(fault.startswith("oct-000002.tar has") for fault in faults)


def test_an_index_that_was_changed_is_named(shard_set: Path) -> None:
    flip(shard_set / "oct-000001.idx", 40)
    assert verify(str(shard_set), 1) == ["oct-000001.idx differs from the manifest's sha256"]


def test_a_key_in_two_shards_is_named(shard_set: Path) -> None:
    manifest = json.loads((shard_set / "manifest.json").read_text())
    first = dict(manifest["shards"][0], name="twin.tar")
    first["index"] = dict(first["index"], name="twin.idx")
    for ending in ("tar", "idx"):
        (shard_set / f"twin.{ending}").write_bytes((shard_set / f"oct-000000.{ending}").read_bytes())
    manifest["shards"].append(first)
    storage.write_json(f"{shard_set}/manifest.json", manifest)
    faults = verify(str(shard_set), 1)
    assert faults[0].startswith("manifest.json says 20 samples")
    assert len(faults) == 1 + first["samples"]
    assert all(fault.endswith("is in the set 2 times") for fault in faults[1:])


def test_what_is_not_a_committed_set_is_an_error(tmp_path: Path, shard_set: Path) -> None:
    (shard_set / "manifest.json").unlink()
    for url in (str(shard_set), str(tmp_path / "none"), "memory://nowhere"):
        with pytest.raises(ManifestError, match=r"there is nothing at|not a shard set"):
            verify(url)
