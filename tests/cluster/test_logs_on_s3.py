"""A run's logs on a real S3 server whose answers go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.formats.log_writer import LogWriter
from retfound_dist.io import storage
from tests.cluster import real_s3
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_s3 import S3


@pytest.fixture
def faulty(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    """Each server behind the proxy; this process sends a request twice at most."""
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    with chaos(s3) as found:
        real_s3.use(found.s3, monkeypatch)
        yield found
    storage._filesystem.cache_clear()


def numbers(url: str) -> list[int]:
    """The rows of a log, every line of which has to be good."""
    return [json.loads(line)["n"] for line in storage.read_bytes(url).splitlines()]


def rows(*wanted: int) -> list[dict[str, object]]:
    """Rows long enough for a flip to hit one of them."""
    return [{"n": n, "text": "x" * 100} for n in wanted]


def test_a_damaged_answer_is_never_written_back(faulty: Chaos) -> None:
    url = storage.join(faulty.s3.url, "run", "metrics.jsonl")
    LogWriter(url).append(rows(*range(20)))
    for start in range(20, 30):
        faulty.set(seed=start, rules=[{"fault": "flip", "share": 0.3, "match": "metrics.jsonl"}])
        LogWriter(url).append(rows(start))
    assert faulty.faults() > 2
    faulty.set(rules=[])
    assert numbers(url) == list(range(30))


def test_a_writer_does_not_read_again_what_it_has_written(faulty: Chaos) -> None:
    url = storage.join(faulty.s3.url, "run", "metrics.jsonl")
    writer = LogWriter(url)
    writer.append(rows(0))
    faulty.set(rules=[{"fault": "500", "methods": ["GET"], "match": "metrics.jsonl"}])
    for n in range(1, 5):
        writer.append(rows(n))
    assert faulty.faults() == 0
    faulty.set(rules=[])
    assert numbers(url) == list(range(5))


def test_what_arrives_damaged_is_sent_again_though_the_tag_of_the_store_is_no_checksum(
    rclone_server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chaos(real_s3.with_new_bucket(rclone_server)) as seen:
        real_s3.use(seen.s3, monkeypatch)
        writer, url = LogWriter(f"{seen.s3.url}/log.jsonl"), f"{seen.s3.url}/log.jsonl"
        writer.append([{"n": 0}])
        writer._tags_are_md5 = False  # as of a bucket that is encrypted by a key of the user's own
        for n in range(1, 5):
            seen.set(rules=[{"fault": "damage", "methods": ["PUT"], "match": "log.jsonl", "times": 1}])
            with pytest.raises(StorageError, match="it arrived damaged"):
                writer.append([{"n": n}])
            writer.append([{"n": n}])  # as the keeper does
        assert numbers(url) == list(range(5))


def test_an_answer_that_is_lost_adds_no_line_twice(faulty: Chaos) -> None:
    url = storage.join(faulty.s3.url, "run", "events.jsonl")
    writer = LogWriter(url)
    writer.append(rows(0))
    faulty.set(rules=[{"fault": "lost", "methods": ["PUT"], "match": "events.jsonl"}])
    with pytest.raises(StorageError):
        writer.append(rows(1, 2))
    assert faulty.faults() > 0
    faulty.set(rules=[])
    writer.append(rows(1, 2))
    writer.append(rows(3))
    assert numbers(url) == [0, 1, 2, 3]


def test_lines_of_two_writers_are_kept_and_a_log_that_was_deleted_comes_back(s3: S3) -> None:
    url = storage.join(s3.url, "run", "alarms.jsonl")
    one, other = LogWriter(url), LogWriter(url)
    one.append(rows(0))
    other.append(rows(1))
    one.append(rows(2))
    other.append(rows(3))
    assert numbers(url) == [0, 1, 2, 3]
    storage.delete(url)
    other.append(rows(4))
    assert numbers(url) == [0, 1, 2, 3, 4]


def test_a_line_that_went_bad_at_the_store_is_put_right_by_who_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_s3.rclone(tmp_path / "disk") as server:
        s3 = real_s3.with_new_bucket(server)
        real_s3.use(s3, monkeypatch)
        url = storage.join(s3.url, "run", "metrics.jsonl")
        writer = LogWriter(url)
        writer.append(rows(0, 1, 2))
        (disk,) = (tmp_path / "disk").rglob("metrics.jsonl")
        disk.write_bytes(disk.read_bytes().replace(b'{"n": 1', b'{"\x00": 1'))
        writer.append(rows(3))
        assert numbers(url) == [0, 1, 2, 3]
    storage._filesystem.cache_clear()
