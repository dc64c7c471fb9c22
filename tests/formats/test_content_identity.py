"""Content decides what is the same."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from retfound_dist.errors import ManifestError
from retfound_dist.formats.content_identity import (
    IdentityCache,
    describe_change,
    describe_set,
    is_prefix_of,
    set_fingerprint,
)
from retfound_dist.formats.shard_set import IndexFile, Manifest, Shard, read_manifest
from retfound_dist.io import storage
from retfound_dist.io.stores import local_disk


def shard(number: int, content: str = "", samples: int = 10) -> Shard:
    name = f"oct-{number:06d}"
    return Shard(
        f"{name}.tar", samples, 100, content or f"{number:064x}", None, IndexFile(f"{name}.idx", 1, "")
    )


def shard_set(*shards: Shard, url: str = "a/set") -> Manifest:
    return Manifest(url, sum(each.samples for each in shards), shards, {}, {}, ())


def test_a_set_is_the_same_under_any_url_and_another_with_any_other_shard() -> None:
    held = shard_set(shard(0), shard(1))
    moved = dataclasses.replace(
        held, url="s3://bucket/elsewhere/", skipped=({"key": "x"},), fingerprint="other"
    )
    assert describe_set(moved) == describe_set(held)
    assert describe_set(held) == {"fingerprint": set_fingerprint(held.shards), "shards": 2, "samples": 20}
    others = [
        (shard(1), shard(0)),
        (shard(0), shard(1, "ff")),
        (shard(0), shard(1, samples=9)),
        (shard(0), dataclasses.replace(shard(1), split="train")),
        (shard(0),),
    ]
    assert len({set_fingerprint(held.shards), *map(set_fingerprint, others)}) == 6


def test_a_grown_set_begins_with_the_old_one_and_the_line_says_how_to_go_on() -> None:
    held = describe_set(shard_set(shard(0), shard(1)))
    grown = shard_set(shard(0), shard(1), shard(2, samples=7))
    assert is_prefix_of(held, grown)
    assert describe_change(held, grown.first_shards(2)) == ""
    said = describe_change(held, grown)
    assert "has grown since the run began, from 2 shards with 20 images to 3 shards with 27 images" in said
    assert "data.first_shards=2" in said
    changed = shard_set(shard(0), shard(1, "ff"), shard(2))
    assert not is_prefix_of(held, changed)
    assert "is not the set that the run began with (2 shards, 20 images)" in describe_change(held, changed)
    assert "is not the set" in describe_change(held, shard_set(shard(0)))


def test_the_first_shards_are_a_set_of_their_own_and_more_than_there_are_is_refused(tmp_path: Path) -> None:
    whole = shard_set(shard(0), shard(1, samples=7))
    assert (whole.first_shards(1).shards, whole.first_shards(1).samples) == ((shard(0),), 10)
    assert whole.first_shards(0) is whole
    with pytest.raises(ManifestError, match=r"data\.first_shards=3: a/set has 2 shards"):
        whole.first_shards(3)
    tree = {"format": 1, "samples": 17, "sources": {}, "image": {}, "skipped": []}
    tree["shards"] = [dataclasses.asdict(each) for each in whole.shards]
    storage.write_json(str(tmp_path / "manifest.json"), tree)
    assert read_manifest(str(tmp_path), 1).samples == 10


def test_what_was_found_out_is_remembered_until_the_mark_changes(tmp_path: Path) -> None:
    url = str(tmp_path / "weights.json")
    IdentityCache(url).put("s3://b/w.pth", "etag 7", {"sha256": "ab"})
    assert IdentityCache(url).get("s3://b/w.pth", "etag 7") == {"sha256": "ab"}
    assert IdentityCache(url).get("s3://b/w.pth", "etag 8") is None
    assert IdentityCache(url).get("s3://b/other.pth", "etag 7") is None
    IdentityCache(url).put("s3://b/v.pth", "", {"sha256": "cd"})
    assert IdentityCache(url).get("s3://b/v.pth", "") is None
    for damaged in (b"{", b"[]", b'{"s3://b/w.pth": {"mark": "etag 7"}}', b'{"s3://b/w.pth": 3}'):
        Path(url).write_bytes(damaged)
        assert IdentityCache(url).get("s3://b/w.pth", "etag 7") is None


def test_a_mark_changes_with_the_file_and_a_file_just_written_has_none(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"aaaa")
    assert storage.version_mark(str(path)) == ""
    old = time.time() - 100
    os.utime(path, (old, old))
    assert storage.version_mark(str(path)) == "", "its inode was touched just now"
    storage.write_bytes("memory://identity/w.pth", b"aaaa")
    assert storage.version_mark("memory://identity/w.pth") == ""


def test_a_settled_file_has_a_mark_that_another_of_its_size_and_time_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_disk, "STABLE_AFTER_S", 0.0)
    path, other = tmp_path / "w.pth", tmp_path / "other"
    path.write_bytes(b"aaaa")
    first = storage.version_mark(str(path))
    assert first
    assert storage.version_mark(str(path)) == first
    time.sleep(0.02)
    other.write_bytes(b"bbbb")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert storage.version_mark(str(path)) not in ("", first)
