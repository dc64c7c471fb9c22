"""What is needed next, and that it is there by then."""

import subprocess
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.io import byte_ranges
from retfound_dist.stream import MicroBatch, open_stream
from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout, rank_share
from retfound_dist.stream.prefetch import KEPT_STEPS, Lookahead
from tests.small_disks import disk_at
from tests.stream.stream_inputs import make_set

PLANS = st.builds(
    BatchPlan,
    st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple),
    st.integers(0, 100),
    st.integers(1, 70),
    st.integers(1, 6),
)


@given(PLANS, st.integers(0, 60), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_what_a_step_reads_is_needed_before_it_and_kept_for_late_processes(
    plan: BatchPlan, start: int, world: int, data: st.DataObject
) -> None:
    cut = make_batch_layout(plan.global_batch, world, 8)
    rank = data.draw(st.integers(0, world - 1))
    own, node = rank_share(cut, rank), rank_share(cut, 0, world)
    ahead, stop = Lookahead(plan, own, node, start + 12), start + 12
    for step in range(start, stop):
        need = ahead.needed_shards(step)
        for near in range(step, min(stop, step + 2)):
            assert set(plan.batch(near)[own].shard.tolist()) <= set(need.rank)
        for near in range(max(start, step - KEPT_STEPS), min(stop, step + 2)):
            assert set(plan.batch(near).shard.tolist()) <= need.node


@given(st.integers(1, 40), st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_no_more_than_three_windows_are_held(shards: int, window: int) -> None:
    plan = BatchPlan((1000,) * shards, 0, 50, min(window, shards))
    ahead = Lookahead(plan, slice(0, 50), slice(0, 50), 10000)
    for step in range(0, 200, 7):
        assert len(ahead.needed_shards(step).node) <= 3 * plan.window


def test_a_remote_set_is_fetched_once_ahead_of_need_and_the_copies_stay(tmp_path: Path) -> None:
    remote = make_set(tmp_path, count=40, url="memory://remote-set")
    before = byte_ranges.traffic_so_far()
    with open_stream(
        read_manifest(remote.url),
        5,
        stop_step=16,
        workers=0,
        window_shards=2,
        cache_dir=str(tmp_path / "cache"),
    ) as stream:
        parts = []
        for part in stream:
            parts.append(part)
            time.sleep(0.05)
    keys = [key for part in parts for key in part.keys]
    assert sorted(keys[:40]) == sorted(keys[40:])
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(remote.shards)
    fetched = byte_ranges.traffic_so_far() - before
    once = sum(shard.bytes + shard.index.bytes for shard in remote.shards)
    assert fetched.bytes < 2 * once  # the first batches ask for single samples besides
    assert sum(part.traffic.bytes for part in parts) <= fetched.bytes
    assert parts[-1].traffic.requests == 0


def test_a_cache_smaller_than_the_window_streams_and_says_so_once(tmp_path: Path) -> None:
    remote = make_set(tmp_path, count=40, url="memory://small-cache")
    room = max(shard.bytes for shard in remote.shards) * 1.5 / 1e9
    folder = tmp_path / "cache"
    with open_stream(
        remote, 8, stop_step=10, workers=0, window_shards=4, cache_dir=str(folder), cache_gb=room
    ) as stream:
        parts = list(stream)
    with open_stream(remote, 8, stop_step=10, workers=0, window_shards=4) as stream:
        assert [p.digest for p in parts] == [p.digest for p in stream]
    assert sum(p.stat().st_size for p in folder.glob("*.tar")) <= room * 1e9
    notes = [note for part in parts for note in part.notes]
    assert len(set(notes)) == 1
    assert "data.cache_gb" in notes[0]


def test_a_copy_that_rots_is_read_from_the_store_and_fetched_again(tmp_path: Path) -> None:
    remote = make_set(tmp_path, count=20, url="memory://rotting")
    folder = tmp_path / "cache"
    with open_stream(remote, 20, stop_step=3, workers=0, cache_dir=str(folder)) as stream:
        whole = [part.digest for part in stream]
        time.sleep(0.5)
    for copy in folder.glob("*.tar"):
        copy.write_bytes(bytes(copy.stat().st_size))
    with open_stream(remote, 20, stop_step=3, workers=0, cache_dir=str(folder)) as stream:
        parts = list(stream)
    assert [part.digest for part in parts] == whole
    assert not any(part.faults for part in parts)
    assert any("is damaged" in note for part in parts for note in part.notes)


def read(manifest: Manifest, **settings: Any) -> list[MicroBatch]:
    with open_stream(
        manifest, global_batch=8, image_size=32, patches=4, stop_step=8, workers=0, **settings
    ) as stream:
        return list(stream)


def test_a_read_only_cache_gives_the_same_batches_and_is_told_once(tmp_path: Path) -> None:
    remote = make_set(tmp_path, url="memory://read-only-cache")
    with disk_at(tmp_path / "cache") as cache:
        first = read(remote, cache_dir=str(cache))
        copies = sorted(cache.glob("*.tar"))
        copies[0].unlink()
        copies[1].write_bytes(copies[1].read_bytes()[:600])
        next(iter(cache.glob("*.idx"))).write_bytes(b"{}")
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        again = read(remote, cache_dir=str(cache))
    assert [batch.digest for batch in again] == [batch.digest for batch in first]
    assert sum(len(batch.faults) for batch in again) == 0
    notes = {note for batch in again for note in batch.notes}
    assert len(notes) == 1
    assert f"shards cannot be kept in {cache} (the disk at {cache} is read-only)" in notes.pop()
