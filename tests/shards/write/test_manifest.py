"""The manifest: counts by source, part and label, alike pictures, and what an append makes of two."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retfound_dist.formats.shard_set import IndexFile, Shard
from shards.images.scan import Scan
from shards.pack import pack
from shards.planning.pack_plan import PackPlan
from shards.write.committed_shards import CommittedShard
from shards.write.manifest import classes, count_scans, merge_manifests, near_duplicates
from shards.write.statistics import Statistics
from tests.shards.pack_inputs import pack_config, write_classes
from tests.shards.packed_samples import samples_of

COUNTS = {"NO": 12, "AMD": 8}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", COUNTS)


PARTED = {"fractions": [0.5, 0.25, 0.25]}


def test_the_manifest_tells_sources_images_and_classes(images: Path, tmp_path: Path) -> None:
    manifest = pack(pack_config(images, tmp_path / "out", split=PARTED))
    assert manifest.classes == ("AMD", "NO")
    source = manifest.sources["images"]
    assert (source["kind"], source["samples"], source["labels"]) == ("folder", 20, {"AMD": 8, "NO": 12})
    assert {part: c["labels"] for part, c in source["splits"].items()} == {
        "train": {"AMD": 4, "NO": 6},
        "val": {"AMD": 2, "NO": 3},
        "test": {"AMD": 2, "NO": 3},
    }
    pixels = np.concatenate(
        [np.asarray(Image.open(io.BytesIO(s["jpg"]))).ravel() for s in samples_of(manifest)]
    )
    assert manifest.image["mean"] == pytest.approx(pixels.mean(), abs=1e-3)
    assert manifest.image["std"] == pytest.approx(pixels.std(), abs=1e-3)
    assert manifest.image["histogram"] == np.bincount(pixels, minlength=256).tolist()
    assert (manifest.image["median_height"], manifest.image["grey"], manifest.image["colour"]) == (48, 20, 0)


def test_sets_packed_before_keep_what_was_found_when_a_source_is_appended() -> None:
    old = {"images": 9, "height": 5, "width": 6, "share": 0.1, "boxes": [[0, 0, 1, 1]]}
    parts = {
        "samples": 0,
        "classes": [],
        "shards": [],
        "sources": {},
        "skipped": [],
        "history": [],
        "recipe": {},
    }
    tree = {**parts, "near_duplicates": {"first": []}, "suspects": {}}
    found = merge_manifests({**tree, "burnt_in": {"clinic": old}}, tree)["burnt_in"]["clinic"]
    assert found == [{"how": "size", "example": "", **old}]


def scan(key: str, **known: Any) -> Scan:
    return Scan(key=key, origin=f"{key}.png", source=known.pop("source", "one"), read=bytes, **known)


def test_counts_are_of_all_scans_and_of_each_part_that_has_any() -> None:
    scans = [
        scan("a", label="AMD", patient="p1", volume="v1", split="train"),
        scan("b", label="AMD", patient="p1", volume="v2", split="train"),
        scan("c", label="NO", split="test"),
        scan("d"),
    ]
    counts = count_scans(scans)
    assert (counts["samples"], counts["patients"], counts["patient_known"], counts["volumes"]) == (4, 1, 2, 2)
    assert counts["labels"] == {"(none)": 1, "AMD": 2, "NO": 1}
    assert list(counts["splits"]) == ["train", "test"]
    assert counts["splits"]["train"]["labels"] == {"AMD": 2}
    assert classes(scans) == ["AMD", "NO"]


def packed(keys: list[str], looks: list[bytes]) -> CommittedShard:
    shard = Shard("oct-000000.tar", len(keys), 1, "", None, IndexFile("oct-000000.idx", 1, ""))
    digests = np.arange(len(keys), dtype=np.uint64)
    return CommittedShard(shard, 0, (), Statistics(), "\n".join(keys), digests, b"".join(looks))


def test_alike_pictures_count_only_between_patients_and_those_across_parts_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    alike, apart = rng.bytes(32), rng.bytes(32)
    scans = (
        scan("a", patient="p1", split="train"),
        scan("b", patient="p1", split="train"),
        scan("c", patient="p2", split="train"),
        scan("d", patient="p3", split="test"),
        scan("e", patient="p4", split="test"),
    )
    looks = [alike, alike, alike, alike, apart]
    found = near_duplicates(PackPlan(scans, "", {}), [packed(["a", "b", "c", "d", "e"], looks)], ())
    pairs = {tuple(pair[:2]) for pair in found["first"]}
    assert pairs == {("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")}
    assert (found["pairs"], found["across_parts"]) == (5, 3)


def test_a_picture_of_the_set_before_is_named_by_its_own_key() -> None:
    look = np.random.default_rng(2).bytes(32)
    plan = PackPlan((scan("new", patient="p9"),), "", {})
    found = near_duplicates(plan, [packed(["old"], [look]), packed(["new"], [look])], ())
    assert found["first"] == [["old", "new", 0]]


def test_an_appended_set_sums_the_old_and_the_new_and_its_fingerprint_is_of_both() -> None:
    def tree(name: str, fingerprint: str) -> dict[str, Any]:
        return {
            "samples": 3,
            "classes": [name],
            "shards": [{"name": name}],
            "sources": {name: {}},
            "near_duplicates": {"pairs": 1, "across_parts": 0, "first": [[name, name, 1]]},
            "suspects": {},
            "skipped": [name],
            "recipe": {"of": name},
            "history": [{"fingerprint": fingerprint}],
        }

    merged = merge_manifests(tree("old", "f1"), tree("new", "f2"))
    assert merged["samples"] == 6
    assert merged["classes"] == ["new", "old"]
    assert [shard["name"] for shard in merged["shards"]] == ["old", "new"]
    assert merged["near_duplicates"]["pairs"] == 2
    assert merged["recipe"] == {"of": "old"}
    assert merged["fingerprint"] == hashlib.sha256(b"f1f2").hexdigest()
