from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retfound_dist import storage
from retfound_dist.errors import ManifestError
from retfound_dist.shardset import Entry, Shard, parse_index, read_index, read_manifest

INDEX = b'{"format":1,"more":{},"samples":[["k","jpg",512,5,1536,2,"ab"]]}\n'


def tree(**changes: Any) -> dict[str, Any]:
    info = storage.bytes_info(INDEX)
    index = {"name": "a-000000.idx", "bytes": info.bytes, "sha256": info.sha256}
    shards = [
        {"name": f"a-{i:06d}.tar", "samples": 1, "bytes": 9, "sha256": "0", "split": split, "index": index}
        for i, split in enumerate(["train", "train", "val"])
    ]
    return {"format": 1, "samples": 3, "shards": shards, "sources": {}, "image": {}, "skipped": [], **changes}


def write(folder: Path, content: Any) -> str:
    storage.write_json(f"{folder}/manifest.json", content)
    storage.write_bytes(f"{folder}/a-000000.idx", INDEX)
    return str(folder)


def test_a_manifest_is_read_with_or_without_what_packing_adds(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, tree()))
    assert (manifest.samples, len(manifest.shards), manifest.classes) == (3, 3, ())
    assert read_manifest(write(tmp_path, tree(classes=["A", "B"]))).classes == ("A", "B")


def test_parts_are_shards_by_split_and_all_is_everything(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, tree()))
    assert [len(manifest.part(part)) for part in ("train", "val", "all")] == [2, 1, 3]
    with pytest.raises(ManifestError, match=r"has no part 'test': it holds train, val; set data\.split=all"):
        manifest.part("test")


def test_auto_leaves_val_and_test_out_and_is_everything_where_there_are_no_parts(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, tree()))
    assert manifest.part("auto") == manifest.part("train")
    none = dataclasses.replace(manifest, shards=tuple(replaced(manifest.shards, None)))
    assert none.part("auto") == none.part("all")
    mixed = dataclasses.replace(manifest, shards=(*manifest.shards, *none.shards))
    assert mixed.part("auto") == (*manifest.part("train"), *none.shards)
    tested = dataclasses.replace(manifest, shards=tuple(replaced(manifest.shards, "test")))
    with pytest.raises(ManifestError, match=r"has no part 'auto': it holds test"):
        tested.part("auto")


def replaced(shards: Iterable[Shard], split: str | None) -> Iterator[Shard]:
    """The shards as those of another part."""
    return (dataclasses.replace(shard, split=split) for shard in shards)


def test_an_index_is_checked_against_the_manifest(tmp_path: Path) -> None:
    url = write(tmp_path, tree())
    shard = read_manifest(url).shards[0]
    assert read_index(url, shard) == (Entry("k", "jpg", 512, 5, 1536, 2, "ab"),)
    storage.write_bytes(f"{url}/a-000000.idx", INDEX.replace(b"512", b"513"))
    with pytest.raises(ManifestError, match=r"a-000000\.idx differs from the manifest's sha256"):
        read_index(url, shard)


def test_a_later_format_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has format 2, this version reads format 1: read it with"):
        read_manifest(write(tmp_path, tree(format=2)))


@pytest.mark.parametrize(
    "content", [[], 5, {}, {"format": 1}, tree(shards=[{"name": "x"}]), tree(samples="many")]
)
def test_what_is_no_manifest_is_one_line(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ManifestError, match="is not a shard manifest"):
        read_manifest(write(tmp_path, content))


@pytest.mark.parametrize("url", ["{}/none", "file://{}/none", "memory://none", "nosuch://none"])
def test_a_url_without_a_set_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(ManifestError, match=r"there is nothing at|not a shard set") as caught:
        read_manifest(url.format(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_index_of_an_older_version_is_refused() -> None:
    with pytest.raises(ManifestError, match="older version"):
        parse_index(b'{"format":1,"samples":[["k","jpg",512,5,1536,2]]}')
