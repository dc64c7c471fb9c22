"""Lists of runs from real S3 servers: few requests, and what the runs' own files say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs

from retfound_dist.formats import run_folder, run_summary
from retfound_dist.io import storage
from retfound_dist.runs.run_facts import read_run, read_run_overview
from retfound_dist.runs.run_list import read_all
from tests.cluster.real_s3 import S3
from tests.runs.made_runs import BEGAN, make_run, row, write_score


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Requests to S3, by kind."""
    found: Counter[str] = Counter()
    ours, theirs = s3fs.S3FileSystem.call_s3, s3fs.S3FileSystem._call_s3

    def call(self: Any, method: str, *args: Any, **more: Any) -> Any:
        found[method] += 1
        return ours(self, method, *args, **more)

    async def own_call(self: Any, method: str, *args: Any, **more: Any) -> Any:
        found[method] += 1
        return await theirs(self, method, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "call_s3", call)
        patch.setattr(s3fs.S3FileSystem, "_call_s3", own_call)
        yield found


def test_a_run_takes_a_listing_and_its_summary_however_long_it_is(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_run(storage.join(s3.url, "runs/long"))
    run_folder.append_rows(url, run_folder.METRICS, [row(step, 2, BEGAN, {}) for step in range(101, 2000)])
    for step in (50, 100):
        write_score(url, step, 0.5 + step / 1000)
    whole = read_run(url).list_values
    run_summary.refresh(url)
    with counted(monkeypatch) as asked:
        assert read_run_overview(url).list_values == whole
    assert (asked["list_objects_v2"], asked["get_object"]) == (1, 1)
    assert asked.total() <= 3
    run_folder.append_rows(url, run_folder.METRICS, [row(2000, 2, BEGAN, {})])
    write_score(url, 100, 0.95)
    with counted(monkeypatch) as asked:
        assert read_run_overview(url).list_values == read_run(url).list_values | {
            "best": {"score": "auroc", "value": 0.95, "step": 100}
        }
    make_run(storage.join(s3.url, "runs/old"))
    found, faults = read_all(storage.join(s3.url, "runs"))
    assert ([run.name for run in found], faults) == (["long", "old"], [])


def test_parts_of_a_file_on_s3_are_the_bytes_that_were_asked_for(s3: S3) -> None:
    url, data = storage.join(s3.url, "file"), bytes(range(256)) * 10
    storage.write_bytes(url, data)
    assert storage.read_range(url, 7, 300) == data[7:300]
    assert storage.read_ends(url, 100) == data[:100] + data[-100:]
