from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.errors import ManifestError
from retfound_dist.formats.shard_set import (
    Entry,
    IndexFile,
    Shard,
    parse_index,
    read_index,
    read_manifest,
)
from retfound_dist.io import storage
from tests.hostile_names import HOSTILE

INDEX = b'{"format":1,"more":{},"samples":[["k","jpg",512,5,1536,2,"ab"]]}\n'
SHARD = Shard("a-000000.tar", 1, 2048, "0", None, IndexFile("a.idx", 65, "0"))


def tree(**changes: Any) -> dict[str, Any]:
    info = storage.bytes_info(INDEX)
    index = {"name": "a-000000.idx", "bytes": info.bytes, "sha256": info.sha256}
    shards = [
        {"name": f"a-{i:06d}.tar", "samples": 1, "bytes": 2048, "sha256": "0", "split": split, "index": index}
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
    with pytest.raises(ManifestError, match=r"has no part 'test': it has train, val; set data\.split=all"):
        manifest.part("test")


def test_auto_leaves_val_and_test_out_and_is_everything_where_there_are_no_parts(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, tree()))
    assert manifest.part("auto") == manifest.part("train")
    none = dataclasses.replace(manifest, shards=tuple(replaced(manifest.shards, None)))
    assert none.part("auto") == none.part("all")
    mixed = dataclasses.replace(manifest, shards=(*manifest.shards, *none.shards))
    assert mixed.part("auto") == (*manifest.part("train"), *none.shards)
    tested = dataclasses.replace(manifest, shards=tuple(replaced(manifest.shards, "test")))
    with pytest.raises(ManifestError, match=r"has no part 'auto': it has test"):
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
    with pytest.raises(ManifestError, match="has format 2, this version reads format 1: use the version"):
        read_manifest(write(tmp_path, tree(format=2)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "line 1: it is a list"),
        (5, "line 1: it is 5"),
        (None, "line 1: it is null"),
        ({}, "format is missing"),
        ({"format": 1}, "samples is missing"),
        (tree(shards=[{"name": "x"}]), r"shards\[0\].samples is missing"),
        (tree(shards={}), "shards is an object"),
        (tree(samples="many"), "samples is 'many'"),
        (tree(samples=True), "samples is true"),
        (tree(samples=-3), "samples is -3"),
        (tree(skipped=[{"key": "x"}]), r"skipped\[0\].origin is missing"),
        (tree(history=[[]]), r"history\[0\] is a list"),
    ],
)
def test_what_is_no_manifest_is_one_line_that_names_the_place(
    tmp_path: Path, content: Any, said: str
) -> None:
    with pytest.raises(
        ManifestError, match=f"manifest.json is damaged: .*{said}.*; pack the set again"
    ) as caught:
        read_manifest(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_key_of_a_later_minor_version_is_no_damage(tmp_path: Path) -> None:
    later = tree(colour_space={"kind": "grey"})
    later["shards"][0]["codec"] = "webp"
    assert read_manifest(write(tmp_path, later)).samples == 3


@pytest.mark.parametrize("samples", [2, 4])
def test_a_total_that_is_not_the_sum_is_refused_and_both_are_told(tmp_path: Path, samples: int) -> None:
    url = write(tmp_path, tree(samples=samples))
    with pytest.raises(
        ManifestError,
        match=f"has a total of {samples} samples, but its shards sum to 3: .*run retfound verify",
    ):
        read_manifest(url)
    assert read_manifest(url, check_total=False).samples == samples


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["shard", "index"])
def test_a_name_that_leads_elsewhere_is_refused_before_any_use(tmp_path: Path, name: Any, place: str) -> None:
    bad = tree()
    part = bad["shards"][1] if place == "shard" else bad["shards"][1]["index"]
    part["name"] = name
    with pytest.raises(
        ManifestError, match=r"manifest\.json is damaged: .*(name is|hex escape).*pack the set again"
    ) as caught:
        read_manifest(write(tmp_path, bad))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["shard", "index"])
def test_a_digest_that_is_a_path_is_refused(tmp_path: Path, place: str) -> None:
    """A cache names its copies by them."""
    bad = tree()
    part = bad["shards"][1] if place == "shard" else bad["shards"][1]["index"]
    part["sha256"] = "/../../../evil"
    with pytest.raises(ManifestError, match=r"sha256 is '/../../../evil'"):
        read_manifest(write(tmp_path, bad))


@pytest.mark.parametrize("url", ["{}/none", "file://{}/none", "memory://none", "nosuch://none"])
def test_a_url_without_a_set_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(ManifestError, match=r"there is nothing at|not a shard set") as caught:
        read_manifest(url.format(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_index_of_an_older_version_is_refused() -> None:
    with pytest.raises(
        ManifestError, match=r"a.idx is damaged: line 1: samples\[0\]\[6\] is missing; pack the set again"
    ):
        parse_index(b'{"format":1,"samples":[["k","jpg",512,5,1536,2]]}', SHARD, "a.idx")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "it is empty"), (b"\x00\xff", "line 1: "), (b"null", "it is null"), (b"[]", "it is a list"),
     (b"[" * 5000, "line 1: it is nested too deep"), (b"{}", "line 1: format is missing"),
     (INDEX.replace(b"{}", b"[" * 5000 + b"]" * 5000), "line 1: it is nested too deep"),
     (b'{"format":1}', "line 1: samples is missing"), (INDEX[:-20], "line 1: it is cut off"),
     (INDEX.replace(b"512", b"-5"), r"line 1: samples\[0\]\[2\] is -5"),
     (INDEX.replace(b"512", b"5.0"), r"samples\[0\]\[2\] is 5.0"),
     (INDEX.replace(b"512", b"true"), r"samples\[0\]\[2\] is true"),
     (INDEX.replace(b"512", b"1e999"), r"line 1: a number is too large"),
     (INDEX.replace(b'"k"', b"7"), r"samples\[0\]\[0\] is 7"),
     (INDEX.replace(b"[[", b"[").replace(b"]]", b"]"), r"samples\[0\] is 'k'"),
     (INDEX.replace(b'"ab"', b'"ab",1'), r"samples\[0\] is a list"),
     (INDEX + INDEX, "line 2: there is text after its end")],
    ids=lambda content: content[:30].decode(errors="replace") if isinstance(content, bytes) else "",
)  # fmt: skip
def test_what_is_no_index_is_one_line_that_names_the_place(content: bytes, why: str) -> None:
    with pytest.raises(ManifestError, match=f"^a.idx is damaged: .*{why}.*; pack the set again") as caught:
        parse_index(content, SHARD, "a.idx")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("found", [b"2", b"0", b'"1"', b"true", b"1.0", b"null"])
def test_an_index_of_another_format_is_refused_and_not_called_damaged(found: bytes) -> None:
    later = INDEX.replace(b'"format":1', b'"format":' + found)
    with pytest.raises(ManifestError, match=r"^a.idx has format .*, this version reads format 1: use the ve"):
        parse_index(later, SHARD, "a.idx")


def test_an_index_of_a_later_minor_version_is_read() -> None:
    later = INDEX.replace(b'"more":{}', b'"more":{"e":[1.5e300,null]},"colour":"red"')
    assert parse_index(later, SHARD, "a.idx") == parse_index(INDEX, SHARD, "a.idx")


@pytest.mark.parametrize("samples", [0, 2])
def test_an_index_of_another_number_of_samples_is_refused(samples: int) -> None:
    shard = dataclasses.replace(SHARD, samples=samples)
    with pytest.raises(
        ManifestError, match=rf"a.idx has 1 samples, but the manifest has {samples} for a-000000.tar"
    ):
        parse_index(INDEX, shard, "a.idx")


def test_a_sample_behind_the_end_of_its_shard_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"a.idx lists samples beyond the end of a-000000.tar"):
        parse_index(INDEX.replace(b"1536", b"2047"), SHARD, "a.idx")


@pytest.mark.parametrize("key", ["../../evil", "/etc/passwd", "a\\\\b", "c:x", "", "\\u0000"])
def test_a_key_that_is_a_path_is_refused(key: str) -> None:
    """Features, pictures and caches are named by keys."""
    with pytest.raises(ManifestError, match=r"a.idx names|leads|a.idx is damaged"):
        parse_index(INDEX.replace(b'"k"', f'"{key}"'.encode()), SHARD, "a.idx")
