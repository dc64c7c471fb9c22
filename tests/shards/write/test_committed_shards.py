"""What stands at a set's URL: records that packing goes on from, and sets that it must not touch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.errors import DataError, FormatError, ManifestError
from retfound_dist.formats.shard_set import read_index, read_manifest
from retfound_dist.io import storage
from shards.images.near_duplicates import HASH_BYTES
from shards.pack import pack, plan_pack
from shards.verify import verify
from shards.write import committed_shards
from shards.write.set_ownership import ShardNames
from tests.shards.damaged_sets import changed, config_for, put, put_right
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes

INDEX = "oct-000001.idx"


def test_the_shards_of_a_later_format_are_refused_and_left_alone(packed: Path, out: Path) -> None:
    (out / "manifest.json").rename(out / "packing.json")
    (out / INDEX).write_bytes(changed((out / INDEX).read_bytes(), put("format", 2)))
    before = file_bytes(out)
    with pytest.raises(FormatError, match=rf"{INDEX} has format 2, this version reads format 1: use the ver"):
        pack(config_for(packed, out))
    left = file_bytes(out)
    assert {name: left[name] for name in before} == before


def test_a_record_of_a_later_minor_version_and_one_from_before_sources_were_kept_are_read(out: Path) -> None:
    (found,) = [shard for shard in read_manifest(str(out)).shards if shard.index.name == INDEX]
    good = committed_shards.read_record(str(out), found)

    def later(tree: dict[str, Any]) -> None:
        tree.update(mood={"deep": [None]})
        tree["shard"]["codec"] = tree["statistics"]["new"] = "x"
        tree["skipped"] = [{"key": "k", "origin": "o", "reason": "r", "by": "a later version"}]
        del tree["source_files"], tree["source_pixels"]

    put_right(out, INDEX, changed((out / INDEX).read_bytes(), later))
    (found,) = [shard for shard in read_manifest(str(out)).shards if shard.index.name == INDEX]
    read = committed_shards.read_record(str(out), found)
    assert read.keys == good.keys
    assert read.digests.tolist() == good.digests.tolist()
    assert read.difference_hashes == good.difference_hashes
    assert read.source_digests is None
    assert good.source_digests is not None
    assert [skip.to_row() for skip in read.skipped] == [{"key": "k", "origin": "o", "reason": "r"}]


COUNTS = {"NO": 12, "AMD": 8}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", COUNTS)


def test_a_set_whose_manifest_is_damaged_is_refused_and_replaced_by_force(
    images: Path, tmp_path: Path
) -> None:
    config = pack_config(images, tmp_path / "out")
    pack(config)
    for damaged in (b"", b"[]", b'{"format": 1}'):
        (tmp_path / "out" / "manifest.json").write_bytes(damaged)
        with pytest.raises(ManifestError, match=r"is damaged: .*; --force replaces the set"):
            pack(config)
        manifest = pack(config, force=True)
        assert verify(manifest.url, 1) == []
        assert len(list((tmp_path / "out").glob("*.tar"))) == len(manifest.shards)


def test_tars_of_somebody_else_are_not_touched(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "oct-000000.tar").write_bytes(b"theirs")
    for force in (False, True):
        with pytest.raises(DataError, match="1 tar files without a manifest"):
            pack(pack_config(images, tmp_path / "out"), force=force)
    assert file_bytes(tmp_path / "out") == {"oct-000000.tar": b"theirs"}


def test_a_set_of_a_later_format_is_not_overwritten(images: Path, tmp_path: Path) -> None:
    pack(pack_config(images, tmp_path / "out"))
    tree = json.loads((tmp_path / "out" / "manifest.json").read_text())
    storage.write_json(f"{tmp_path}/out/manifest.json", {**tree, "format": 9})
    with pytest.raises(ManifestError, match="format 9"):
        pack(pack_config(images, tmp_path / "out"), force=True)


def test_a_record_holds_all_that_packing_goes_on_from(out: Path) -> None:
    manifest = read_manifest(str(out))
    before = 0
    for shard in manifest.shards:
        record = committed_shards.read_record(str(out), shard)
        assert record.shard == shard
        assert record.keys == [entry.key for entry in read_index(str(out), shard)]
        assert len(record.digests) == len(record.keys)
        assert len(record.difference_hashes) == HASH_BYTES * len(record.keys)
        assert record.next_place == before + shard.samples
        before = record.next_place


def test_an_index_that_differs_from_the_manifest_asks_for_a_repair(out: Path) -> None:
    shard = next(shard for shard in read_manifest(str(out)).shards if shard.index.name == INDEX)
    (out / INDEX).write_bytes((out / INDEX).read_bytes() + b" ")
    with pytest.raises(
        DataError,
        match=rf"{INDEX} differs from the manifest: repair it with retfound verify .* --repair CONFIG",
    ):
        committed_shards.read_record(str(out), shard)


def test_only_the_shards_before_the_first_change_of_the_plan_are_recovered(packed: Path, out: Path) -> None:
    config = config_for(packed, out)
    plan = plan_pack(config)
    count = len(read_manifest(str(out)).shards)
    recovered = committed_shards.recover_shards(str(out), ShardNames("oct"), plan)
    assert len(recovered) == count
    assert recovered[-1].next_place == len(plan.scans)
    place = recovered[0].next_place + 1
    scans = (*plan.scans[:place], replace(plan.scans[place], size=1), *plan.scans[place + 1 :])
    recovered = committed_shards.recover_shards(str(out), ShardNames("oct"), replace(plan, scans=scans))
    assert len(recovered) == 1
    assert sorted(path.name for path in out.glob("oct-*")) == ["oct-000000.idx", "oct-000000.tar"]
