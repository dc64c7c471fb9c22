"""Reads ranges of remote files in parallel, with retries. Counts requests, bytes and retries."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from retfound_dist.io import slow_store, storage
from retfound_dist.io.retry import Patience, is_transient
from retfound_dist.io.stores.s3_store import RANGES_AT_ONCE


@dataclass(frozen=True)
class ReadTraffic:
    """Counts of the range requests of a process since its start."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    """Requests that failed: refused, interrupted, too late, or with wrong bytes."""

    def __add__(self, other: ReadTraffic) -> ReadTraffic:
        return ReadTraffic(
            self.requests + other.requests, self.bytes + other.bytes, self.retries + other.retries
        )

    def __sub__(self, other: ReadTraffic) -> ReadTraffic:
        return self + ReadTraffic(-other.requests, -other.bytes, -other.retries)


_traffic, _traffic_lock = ReadTraffic(), threading.Lock()


def traffic_so_far() -> ReadTraffic:
    """The counts of this process so far."""
    return _traffic


def add_traffic(added: ReadTraffic) -> None:
    """Add to the counts of this process."""
    global _traffic
    with _traffic_lock:
        _traffic += added


@dataclass(frozen=True)
class Range:
    """Bytes `start` up to, not including, `stop` of a URL."""

    url: str
    start: int
    stop: int


def read_ranges(ranges: Sequence[Range], patience_s: float) -> list[bytes]:
    """Returns the bytes of each range. Requests run in parallel, and each is repeated until it is answered.

    Raises StorageError where the store refuses, or does not answer for `patience_s` seconds. A range that
    ends after the end of the file gives fewer bytes.
    """
    if not ranges:
        return []
    with slow_store.waiting(f"{ranges[0].url} (to read)", patience_s):
        return _read_all(ranges, patience_s)


def _read_all(ranges: Sequence[Range], patience_s: float) -> list[bytes]:
    """Read all ranges; repeat requests that failed, until the store has not answered for `patience_s`."""
    answers: list[bytes | None] = [None] * len(ranges)
    patience = Patience(ranges[0].url, patience_s)
    while missing := [number for number, data in enumerate(answers) if data is None]:
        last_error: Exception | None = None
        for number, answer in zip(missing, _request_once([ranges[n] for n in missing]), strict=True):
            if isinstance(answer, bytes):
                answers[number] = answer
                add_traffic(ReadTraffic(requests=1, bytes=len(answer)))
                # Any answer shows that the store is reachable, so the time until giving up starts again.
                patience.succeeded()
                continue
            add_traffic(ReadTraffic(requests=1, retries=1))
            with storage.storage_errors(ranges[number].url, "read"):
                if not is_transient(answer):
                    raise answer
            last_error = answer
        if last_error is not None and not patience.wait(last_error):
            with storage.storage_errors(patience.url, f"read (asked for {patience_s:.0f} s)"):
                raise last_error
    return [data for data in answers if data is not None]


def _request_once(ranges: Sequence[Range]) -> list[bytes | Exception]:
    """Requests each range once."""
    # One attempt: botocore's own retries would multiply with those of `_read_all`, and are not counted.
    fs, _ = storage.open_fs(ranges[0].url, attempts=1)
    paths = [storage.open_fs(part.url, attempts=1)[1] for part in ranges]
    starts, stops = [part.start for part in ranges], [part.stop for part in ranges]
    # `batch_size` is an option of fsspec's asynchronous filesystems only.
    at_once = {"batch_size": RANGES_AT_ONCE} if fs.async_impl else {}
    answers = fs.cat_ranges(paths, starts, stops, on_error="return", **at_once)
    return [_checked_length(part, answer) for part, answer in zip(ranges, answers, strict=True)]


def _checked_length(part: Range, answer: bytes | Exception) -> bytes | Exception:
    """Returns the answer, or an error where a body ended before the file does."""
    if isinstance(answer, bytes) and len(answer) == part.stop - part.start:
        return answer
    # s3fs raises EINVAL for a range that begins after the end of the file (S3's 416). A short body is
    # correct at the end of a file and a broken connection anywhere else. Only the file's size shows which.
    if isinstance(answer, bytes) or (isinstance(answer, OSError) and answer.errno == errno.EINVAL):
        expected = max(0, min(part.stop, storage.size(part.url)) - part.start)
        data = answer if isinstance(answer, bytes) else b""
        if len(data) == expected:
            return data
        return TimeoutError(f"the answer ended after {len(data)} of {expected} bytes")
    return answer
