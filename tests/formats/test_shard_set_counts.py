"""A wrong count moves every batch: it is found before the first one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.errors import ManifestError, StorageError
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.formats.shard_set_counts import check_counts, count_in_head
from retfound_dist.io import storage
from retfound_dist.runtime.world import World
from retfound_dist.stream import open_stream
from tests.stream.stream_inputs import make_set


@pytest.fixture(params=["disk", "memory"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manifest]:
    url = "" if request.param == "disk" else "memory://set-counts/set"
    yield make_set(tmp_path, 30, url)
    if url:
        storage.delete(url)


def change(manifest: Manifest, number: int, by: int) -> Manifest:
    """The set with another count of one shard, in manifest.json and in its total."""
    where = storage.join(manifest.url, "manifest.json")
    tree = storage.read_json(where)
    tree["shards"][number]["samples"] += by
    tree["samples"] += by
    storage.write_json(where, tree)
    return read_manifest(manifest.url)


@pytest.mark.parametrize("by", [-1, 1])
def test_a_wrong_count_is_the_same_refusal_on_every_rank_before_the_first_batch(
    manifest: Manifest, by: int
) -> None:
    last = len(manifest.shards) - 1
    wrong = change(manifest, last, by)
    said = set()
    for rank in range(3):
        with pytest.raises(ManifestError) as caught:
            open_stream(wrong, 4, image_size=28, patches=4, world=World(rank, 3), start_step=0, stop_step=1)
        said.add(str(caught.value))
    (line,) = said
    true = manifest.shards[last].samples
    assert (
        f"{manifest.shards[last].index.name} has {true} samples, but the manifest has {true + by} for" in line
    )


def test_sound_counts_are_read_from_the_heads_of_the_indexes_alone(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(url: str, shard: Any) -> None:
        raise AssertionError(f"{shard.index.name} was read whole")

    monkeypatch.setattr("retfound_dist.formats.shard_set_counts.read_index", whole)
    check_counts(manifest.url, manifest.shards, 1.0)


@pytest.mark.parametrize("by", [-1, 0, 1])
def test_an_index_that_does_not_say_its_count_is_read_whole(manifest: Manifest, by: int) -> None:
    shard = manifest.shards[1]
    where = storage.join(manifest.url, shard.index.name)
    data = json.dumps({"format": 1, "samples": storage.read_json(where)["samples"]}).encode()
    storage.write_bytes(where, data)
    info = storage.bytes_info(data)
    index = dataclasses.replace(shard.index, bytes=info.bytes, sha256=info.sha256)
    changed = dataclasses.replace(shard, index=index, samples=shard.samples + by)
    if not by:
        check_counts(manifest.url, [changed], 1.0)
        return
    with pytest.raises(ManifestError, match=f"the manifest has {shard.samples + by} for {shard.name}"):
        check_counts(manifest.url, [changed], 1.0)


def test_a_missing_index_is_one_line(manifest: Manifest) -> None:
    storage.delete(storage.join(manifest.url, manifest.shards[2].index.name))
    with pytest.raises(StorageError, match=f"{manifest.shards[2].index.name}: there is nothing there"):
        check_counts(manifest.url, manifest.shards, 1.0)


@pytest.mark.parametrize(
    "head",
    [b"", b"{}", b"null", b"\xff", b'{"format":1,"shard":{}', b'{"format":1,"shard":{"samples":"4"}}',
     b'{"format":1,"shard":{"samples":true}}', b'{"format":1,"shard":{,}}',
     b'{"format":1,"shard":{"samples":-1}}', b'{"format":1,"shard":{"samples":' + b"[" * 1900 + b"}"],
)  # fmt: skip
def test_what_is_no_head_tells_no_count(head: bytes) -> None:
    assert count_in_head(head) is None


def test_a_head_tells_its_count() -> None:
    assert count_in_head(b'{"format":1,"shard":{"name":"oct-000000.tar","samples":17},"mark":"ab","sam') == 17
