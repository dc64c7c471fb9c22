"""Local copies of shards: whole, checked, shared, bounded."""

import os
import time
from pathlib import Path

import pytest

from retfound_dist.errors import ManifestError, StorageError
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.io import byte_ranges, storage
from retfound_dist.stream.shard_cache import FetchResult, ShardCache
from tests.stream.stream_inputs import make_set


@pytest.fixture
def manifest(tmp_path: Path, request: pytest.FixtureRequest) -> Manifest:
    return make_set(tmp_path, count=30, url=f"memory://cache-{request.node.name}")


def cache(
    manifest: Manifest, folder: Path, limit: int | None = None, only_needed: bool = False
) -> ShardCache:
    return ShardCache(manifest.url, str(folder), limit, only_needed, patience_s=1)


def names(folder: Path) -> set[str]:
    return {path.name.split(".")[0] for path in folder.glob("*.tar")}


def test_a_copy_is_whole_checked_and_found_again(manifest: Manifest, tmp_path: Path) -> None:
    here, shard = cache(manifest, tmp_path / "c"), manifest.shards[0]
    assert here.path(shard) is None
    assert here.fetch(shard, (), wait=True) is FetchResult.READY
    path = cache(manifest, tmp_path / "c").path(shard)
    assert path is not None
    assert storage.file_info(path) == storage.FileInfo(shard.bytes, shard.sha256)
    assert len(here.entries(shard)) == shard.samples


def test_bytes_that_differ_are_not_kept(manifest: Manifest, tmp_path: Path) -> None:
    shard, here = manifest.shards[0], cache(manifest, tmp_path / "c")
    url = storage.join(manifest.url, shard.name)
    storage.write_bytes(url, storage.read_bytes(url)[:-1] + b"x")
    before = byte_ranges.traffic_so_far()
    assert here.fetch(shard, (), wait=True) is FetchResult.WRONG_BYTES
    assert byte_ranges.traffic_so_far().retries - before.retries == 3
    assert list((tmp_path / "c").glob("*.tar*")) == list((tmp_path / "c").glob("*.differs"))
    before = byte_ranges.traffic_so_far()
    assert here.fetch(shard, (), wait=True) is FetchResult.WRONG_BYTES
    assert byte_ranges.traffic_so_far().requests == before.requests


def test_an_index_that_differs_is_an_error(manifest: Manifest, tmp_path: Path) -> None:
    shard = manifest.shards[0]
    url = storage.join(manifest.url, shard.index.name)
    storage.write_bytes(url, storage.read_bytes(url)[:-1] + b" ")
    with pytest.raises(ManifestError, match=f"{shard.index.name} of .* differs"):
        cache(manifest, tmp_path / "c").entries(shard)


def test_a_missing_shard_is_one_line(manifest: Manifest, tmp_path: Path) -> None:
    storage.delete(storage.join(manifest.url, manifest.shards[0].name))
    with pytest.raises(StorageError, match=f"{manifest.shards[0].name}: there is nothing there"):
        cache(manifest, tmp_path / "c").fetch(manifest.shards[0], (), wait=True)


def test_what_was_used_longest_ago_goes_first(manifest: Manifest, tmp_path: Path) -> None:
    a, b, c, d = manifest.shards[:4]
    here = cache(manifest, tmp_path / "c", limit=a.bytes + b.bytes + c.bytes)
    for age, shard in ((300, a), (200, b), (100, c)):
        here.fetch(shard, (), wait=True)
        path = here.path(shard)
        assert path is not None
        os.utime(path, (time.time() - age,) * 2)
    assert here.path(a)  # used now
    assert here.fetch(d, (), wait=True) is FetchResult.READY
    assert names(tmp_path / "c") == {s.name.removesuffix(".tar") for s in (a, c, d)}


def test_what_is_needed_makes_no_room(manifest: Manifest, tmp_path: Path) -> None:
    a, b, c = manifest.shards[:3]
    here = cache(manifest, tmp_path / "c", limit=a.bytes + b.bytes)
    here.fetch(a, (), wait=True)
    here.fetch(b, (), wait=True)
    assert here.fetch(c, here.paths([a, b, c]), wait=True) is FetchResult.NO_SPACE
    assert here.fetch(c, here.paths([b, c]), wait=True) is FetchResult.READY
    assert names(tmp_path / "c") == {s.name.removesuffix(".tar") for s in (b, c)}


def test_a_temporary_cache_holds_only_what_is_needed(manifest: Manifest, tmp_path: Path) -> None:
    a, b, c = manifest.shards[:3]
    here = cache(manifest, tmp_path / "c", only_needed=True)
    here.fetch(a, (), wait=True)
    here.fetch(b, here.paths([a]), wait=True)
    assert len(names(tmp_path / "c")) == 2
    here.fetch(c, here.paths([b]), wait=True)
    assert names(tmp_path / "c") == {s.name.removesuffix(".tar") for s in (b, c)}


def test_a_full_disk_gives_no_room_and_leaves_nothing(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    here = cache(manifest, tmp_path / "c")
    here.fetch(manifest.shards[0], (), wait=True)
    monkeypatch.setattr(os, "posix_fallocate", full)
    needed = here.paths(manifest.shards[:1])
    assert here.fetch(manifest.shards[1], needed, wait=True) is FetchResult.NO_SPACE
    assert names(tmp_path / "c") == {manifest.shards[0].name.removesuffix(".tar")}
    assert not list((tmp_path / "c").glob("*.part"))


def test_what_a_crash_left_half_fetched_is_fetched_again(manifest: Manifest, tmp_path: Path) -> None:
    shard, here = manifest.shards[0], cache(manifest, tmp_path / "c", limit=manifest.shards[0].bytes)
    stale = Path(next(iter(here.paths([manifest.shards[1]]))) + ".part")
    stale.write_bytes(bytes(1000))
    own = Path(next(iter(here.paths([shard]))) + ".part")
    own.write_bytes(bytes(10))
    assert here.path(shard) is None
    assert here.fetch(shard, (), wait=True) is FetchResult.READY
    assert not stale.exists()
    assert not own.exists()


def test_a_shard_that_another_process_fetches_is_busy(manifest: Manifest, tmp_path: Path) -> None:
    here, shard = cache(manifest, tmp_path / "c"), manifest.shards[0]
    with here._locked(os.path.basename(next(iter(here.paths([shard])))), wait=True):
        assert here.fetch(shard, (), wait=False) is FetchResult.BUSY
    assert here.fetch(shard, (), wait=False) is FetchResult.READY
