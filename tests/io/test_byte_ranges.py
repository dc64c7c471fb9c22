"""Parts of remote files, counted. What a failing store does to them: tests/cluster/test_stream_on_s3.py."""

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import byte_ranges, storage
from retfound_dist.io.byte_ranges import Range

URL = "memory://ranges/file"


@pytest.fixture(autouse=True)
def _file() -> None:
    storage.write_bytes(URL, bytes(range(200)))


def test_parts_come_in_the_order_asked_for_and_are_counted() -> None:
    before = byte_ranges.traffic_so_far()
    parts = byte_ranges.read_ranges([Range(URL, 100, 110), Range(URL, 0, 3), Range(URL, 199, 200)], 1.0)
    assert parts == [bytes(range(100, 110)), bytes(range(3)), b"\xc7"]
    traffic = byte_ranges.traffic_so_far() - before
    assert (traffic.requests, traffic.bytes, traffic.retries) == (3, 14, 0)


def test_behind_the_end_there_is_less() -> None:
    assert byte_ranges.read_ranges([Range(URL, 195, 300)], 1.0) == [bytes(range(195, 200))]


def test_what_is_not_there_is_said_at_once() -> None:
    with pytest.raises(StorageError, match=r"memory://ranges/nothing.*nothing there"):
        byte_ranges.read_ranges([Range("memory://ranges/nothing", 0, 10)], 60.0)


def test_nothing_asked_nothing_read() -> None:
    assert byte_ranges.read_ranges([], 1.0) == []
