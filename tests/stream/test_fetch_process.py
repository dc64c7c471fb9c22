"""The process that fetches a rank's shards ahead: a real one, from files to a cache folder."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from retfound_dist.formats.shard_set import Manifest
from retfound_dist.io import storage
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.stream.fetch_process import FetchProcess, FetchReport
from retfound_dist.stream.stream_spec import StreamSpec
from tests.stream.stream_inputs import make_set, make_spec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"), count=30)


@contextmanager
def fetching(spec: StreamSpec) -> Iterator[FetchProcess]:
    fetcher = FetchProcess(spec)
    try:
        yield fetcher
    finally:
        fetcher.process.kill()
        fetcher.process.join()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def collect(fetcher: FetchProcess, enough: Callable[[FetchReport], bool]) -> FetchReport:
    """The sum of all report until there is enough. Steps alternate, because the process answers only to a new one."""
    total, steps = FetchReport((), ReadTraffic()), itertools.cycle(range(3))

    def ask() -> bool:
        nonlocal total
        report = fetcher.set_step(next(steps))
        total = FetchReport(total.notes + report.notes, total.traffic + report.traffic)
        return enough(total)

    assert wait_for(ask), total
    return total


def test_the_shards_of_the_next_steps_arrive_whole_before_they_are_asked_for(
    manifest: Manifest, tmp_path: Path
) -> None:
    spec = make_spec(manifest, str(tmp_path / "cache"), window_shards=100)
    with fetching(spec) as fetcher:
        fetcher.set_step(0)
        cache = spec.cache()
        assert wait_for(lambda: all(cache.path(shard) for shard in manifest.shards))
    for shard in manifest.shards:
        path = cache.path(shard)
        assert path is not None
        assert storage.file_info(path).sha256 == shard.sha256


def test_what_was_read_is_told_once_and_not_again(manifest: Manifest, tmp_path: Path) -> None:
    once = sum(shard.bytes + shard.index.bytes for shard in manifest.shards)
    with fetching(make_spec(manifest, str(tmp_path / "cache"), window_shards=100)) as fetcher:
        report = collect(fetcher, lambda total: total.traffic.bytes >= once)
        assert report == FetchReport((), ReadTraffic(report.traffic.requests, once, 0))
        again = [fetcher.set_step(step % 3) for step in range(20) if not time.sleep(0.02)]
        assert again == [FetchReport((), ReadTraffic())] * 20


def test_a_cache_without_room_is_told_in_the_news(manifest: Manifest, tmp_path: Path) -> None:
    room = max(shard.bytes for shard in manifest.shards) * 1.5 / 1e9
    spec = make_spec(manifest, "", cache_dir=str(tmp_path / "cache"), cache_gb=room, window_shards=100)
    with fetching(spec) as fetcher:
        report = collect(fetcher, lambda total: bool(total.notes))
    assert "is too little" in report.notes[0]
    assert "reading samples directly from" in report.notes[0]


def test_a_fetcher_that_was_killed_is_no_error_of_the_rank(manifest: Manifest, tmp_path: Path) -> None:
    with fetching(make_spec(manifest, str(tmp_path / "cache"))) as fetcher:
        fetcher.set_step(0)
        fetcher.process.kill()
        fetcher.process.join()
        assert [fetcher.set_step(step).notes for step in range(1, 4)] == [()] * 3


def test_the_process_ends_when_the_rank_drops_its_end(manifest: Manifest, tmp_path: Path) -> None:
    fetcher = FetchProcess(make_spec(manifest, str(tmp_path / "cache")))
    fetcher.set_step(0)
    process = psutil.Process(fetcher.process.pid)
    del fetcher
    assert wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
