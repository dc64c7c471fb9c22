"""Samples into shards: their size, their part, the budget of bad images, and nothing left behind."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import webdataset

from retfound_dist.config.schema import PackImage, PackOut
from retfound_dist.errors import DataError
from retfound_dist.io import storage
from shards.images.scan import Scan
from shards.pack import pack
from shards.planning.pack_plan import PackPlan
from shards.write.packed_sample import PackedSample, Skipped, make_sample
from shards.write.shard_writer import ShardWriter
from tests.shards.pack_inputs import pack_config, scan_pixels, write_classes

COUNTS = {"NO": 12, "AMD": 8}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", COUNTS)


PARTED = {"fractions": [0.5, 0.25, 0.25]}


def test_parts_share_no_shard_and_shards_are_numbered_on(images: Path, tmp_path: Path) -> None:
    manifest = pack(pack_config(images, tmp_path / "out", split=PARTED))
    assert [s.name for s in manifest.shards] == [f"oct-{i:06d}.tar" for i in range(len(manifest.shards))]
    assert [sum(s.samples for s in manifest.part(p)) for p in ("train", "val", "test")] == [10, 5, 5]
    for shard in manifest.shards:
        found = webdataset.WebDataset(f"{manifest.url}/{shard.name}", shardshuffle=False)
        assert {json.loads(s["json"])["split"] for s in found} == {shard.split}


def test_shards_close_before_they_grow_too_large(images: Path, tmp_path: Path) -> None:
    manifest = pack(pack_config(images, tmp_path / "out"))
    assert len(manifest.shards) > 2
    assert all(shard.bytes <= 20_000 + tarfile.RECORDSIZE for shard in manifest.shards)


def test_more_bad_images_than_the_budget_is_an_error_without_a_manifest(images: Path, tmp_path: Path) -> None:
    for number in range(3):
        (images / "NO" / f"bad{number}.jpg").write_text("hi")
    config = pack_config(images, tmp_path / "out", out={"bad_sample_budget": 2})
    with pytest.raises(DataError, match=r"3 of 23 images .* out.bad_sample_budget is 2: NO/bad\d.jpg is not"):
        pack(config)
    assert not storage.exists(f"{tmp_path}/out/manifest.json")
    assert pack(pack_config(images, tmp_path / "out", out={"bad_sample_budget": 3})).samples == 20


def write(
    folder: Path, splits: list[str], results: list[PackedSample | Skipped], **out: float
) -> ShardWriter:
    """Take these results, one for each place of a plan, and commit what is left open."""
    scans = tuple(
        Scan(key=result.key, origin=f"{result.key}.png", source="s", read=bytes, split=split)
        for split, result in zip(splits, results, strict=True)
    )
    plan = PackPlan(scans, "f", {})
    with ShardWriter(PackOut(url=str(folder), **out), plan, str(folder), ()) as writer:  # type: ignore[arg-type]
        for place, result in enumerate(results):
            writer.add_result(place, result)
        writer.commit(len(results))
    return writer


def sample(key: str, seed: int) -> PackedSample:
    pixels = scan_pixels(seed)
    made = make_sample(Scan(key=key, origin=key, source="s", read=lambda: pixels), image=PackImage())
    assert isinstance(made, PackedSample)
    return made


def test_a_shard_ends_with_its_part_and_says_where_the_next_one_begins(tmp_path: Path) -> None:
    results: list[PackedSample | Skipped] = [sample("a", 1), sample("b", 2), sample("c", 3)]
    writer = write(tmp_path, ["train", "train", "val"], results)
    assert [(committed.shard.split, committed.keys, committed.next_place) for committed in writer.shards] == [
        ("train", ["a", "b"], 2),
        ("val", ["c"], 3),
    ]
    for committed in writer.shards:
        assert storage.file_info(str(tmp_path / committed.shard.name)).sha256 == committed.shard.sha256


def test_the_same_picture_is_packed_once_and_the_second_names_the_first(tmp_path: Path) -> None:
    writer = write(tmp_path, ["train", "train"], [sample("a", 1), sample("b", 1)])
    assert [committed.keys for committed in writer.shards] == [["a"]]
    assert writer.skipped == [Skipped("b", "b.png", "is the same picture as a")]
    assert writer.shards[0].skipped == tuple(writer.skipped), "its record tells of it too"


def test_whatever_ends_it_leaves_no_open_shard_and_no_mark_where_nothing_was_put(tmp_path: Path) -> None:
    bad = Skipped("b", "b.png", "is blank")
    with pytest.raises(DataError, match=r"1 of 2 images cannot be used.*b.png is blank"):
        write(tmp_path, ["train", "train"], [sample("a", 1), bad], bad_sample_budget=0)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_to_write_comes_before_anything_is_put(tmp_path: Path) -> None:
    def refuse() -> None:
        raise DataError("another process packs there")

    scans = (Scan(key="a", origin="a.png", source="s", read=bytes),)
    plan, out = PackPlan(scans, "f", {}), PackOut(url=str(tmp_path))
    with ShardWriter(out, plan, str(tmp_path), (), confirm_lock=refuse) as writer:
        writer.add_result(0, sample("a", 1))
        with pytest.raises(DataError, match="another process"):
            writer.commit(1)
    assert not list(tmp_path.glob("oct-*"))
