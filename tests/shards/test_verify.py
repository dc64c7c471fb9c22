from __future__ import annotations

import json
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import ManifestError
from retfound_dist.formats.content_identity import set_fingerprint
from retfound_dist.formats.shard_set import read_index, read_manifest
from retfound_dist.io import storage
from shards.commands import verify_command
from shards.pack import pack
from shards.verify import verify
from tests.shards.pack_inputs import pack_config, write_classes


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


def change_json(shard_set: Path, field: str) -> str:
    """Change a field of the first sample's JSON, and put every sha256 right; gives the shard's name."""
    manifest = json.loads((shard_set / "manifest.json").read_text())
    row = manifest["shards"][0]
    entry = read_index(str(shard_set), read_manifest(str(shard_set)).shards[0])[0]
    tar = bytearray((shard_set / row["name"]).read_bytes())
    place = slice(entry.json_offset, entry.json_offset + entry.json_bytes)
    value = json.loads(tar[place])[field]
    other = ("Y" if value.startswith("X") else "X") + value[1:]
    tar[place] = tar[place].replace(f'"{field}":"{value}"'.encode(), f'"{field}":"{other}"'.encode())
    (shard_set / row["name"]).write_bytes(tar)
    row["sha256"] = storage.file_info(str(shard_set / row["name"])).sha256
    storage.write_json(f"{shard_set}/manifest.json", manifest)
    return str(row["name"])


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A set in parts, of which labels and patients are known."""
    images = write_classes(tmp_path / "images", {"A": 12, "B": 8})
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))
    rows = [f"{name},{name[0]},P{number:02d}" for number, name in enumerate(names)]
    (images / "list.csv").write_text("\n".join(["file,label,patient", *rows]) + "\n")
    tree = {
        "source": {"kind": "csv", "path": str(images / "list.csv")},
        "split": {"fractions": [0.5, 0.3, 0.2]},
        "out": {"url": str(tmp_path / "out"), "shard_mb": 0.02, "workers": 1},
    }
    pack(build(PackConfig, tree, "test"))
    assert verify(f"{tmp_path}/out", 1) == []
    return tmp_path / "out"


@pytest.mark.parametrize("field", ["label", "patient", "split"])
def test_an_edited_label_patient_or_part_is_found_though_every_sha256_was_put_right(
    listed: Path, field: str
) -> None:
    name = change_json(listed, field)
    faults = verify(str(listed), 1)
    assert f"{name}: the part, label or patient of a sample differs from the digest in the manifest" in faults


def test_a_shard_that_was_moved_to_another_part_is_found(listed: Path) -> None:
    manifest = json.loads((listed / "manifest.json").read_text())
    row = next(row for row in manifest["shards"] if row["split"] == "test")
    row["split"] = "train"
    storage.write_json(f"{listed}/manifest.json", manifest)
    count = row["samples"]
    assert verify(str(listed), 1) == [
        f"{row['name']}: {count} of its samples say part test; manifest.json says train"
    ]


def test_a_set_that_was_packed_before_digests_were_kept_is_sound_and_the_lack_is_told(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((listed / "manifest.json").read_text())
    before = set_fingerprint(read_manifest(str(listed)).shards)
    for row in manifest["shards"]:
        del row["fields_sha256"]
    storage.write_json(f"{listed}/manifest.json", manifest)
    assert verify_command(str(listed), workers=1) == 0
    said = capsys.readouterr().out
    count = len(manifest["shards"])
    assert (
        f"labels and patients of {count} of {count} shards could not be compared with manifest.json" in said
    )
    assert "no faults" in said
    assert set_fingerprint(read_manifest(str(listed)).shards) == before, "runs on old sets go on"


@pytest.mark.parametrize("by", [-1, 1])
def test_a_count_that_is_not_the_index_s_is_named(shard_set: Path, by: int) -> None:
    manifest = json.loads((shard_set / "manifest.json").read_text())
    manifest["shards"][1]["samples"] += by
    manifest["samples"] += by
    storage.write_json(f"{shard_set}/manifest.json", manifest)
    faults = verify(str(shard_set), 1)
    assert any("oct-000001.idx has" in fault for fault in faults)
    assert all(fault.startswith("oct-000001") for fault in faults)


def test_the_path_of_another_file_tells_nothing_of_it(
    shard_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret.tar"
    secret.write_bytes(bytes(12345))
    for name in (str(secret), "../secret.tar"):
        manifest = json.loads((shard_set / "manifest.json").read_text())
        manifest["shards"][0]["name"] = name
        storage.write_json(f"{shard_set}/manifest.json", manifest)
        assert main(["verify", str(shard_set)]) == 2
        said = capsys.readouterr()
        assert "12,345" not in said.out + said.err
        assert "leads to another folder" in said.err
        assert len(said.err.splitlines()) == 1


def test_what_is_not_a_committed_set_is_an_error(tmp_path: Path, shard_set: Path) -> None:
    (shard_set / "manifest.json").unlink()
    for url in (str(shard_set), str(tmp_path / "none"), "memory://nowhere"):
        with pytest.raises(ManifestError, match=r"there is nothing at|not a shard set"):
            verify(url)
