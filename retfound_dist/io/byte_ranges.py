"""Parts of remote files, many at once, asked for until they come; what was asked of the store is counted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from retfound_dist.io import slow_store, storage
from retfound_dist.io.retry import Patience, is_passing


@dataclass(frozen=True)
class ReadTraffic:
    """What a process has read by ranges since it began."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    """Answers that did not count: refused, broken off, late, or the wrong bytes."""

    def __add__(self, other: ReadTraffic) -> ReadTraffic:
        return ReadTraffic(
            self.requests + other.requests, self.bytes + other.bytes, self.retries + other.retries
        )

    def __sub__(self, other: ReadTraffic) -> ReadTraffic:
        return self + ReadTraffic(-other.requests, -other.bytes, -other.retries)


_traffic, _traffic_lock = ReadTraffic(), threading.Lock()


def traffic() -> ReadTraffic:
    """What this process has read by ranges so far."""
    return _traffic


def count(more: ReadTraffic) -> None:
    """Add to what this process has read."""
    global _traffic
    with _traffic_lock:
        _traffic += more


@dataclass(frozen=True)
class Range:
    """Bytes `start` up to, not including, `stop` of a URL."""

    url: str
    start: int
    stop: int


def read_ranges(ranges: Sequence[Range], patience_s: float) -> list[bytes]:
    """The bytes of each range, many requests at once, each sent again until it is answered.

    StorageError when the store refuses, or has answered nothing for `patience_s`. A range that ends
    behind the file's end gives fewer bytes than asked for.
    """
    if not ranges:
        return []
    with slow_store.waiting(f"{ranges[0].url} (to read)", patience_s):
        return _read_all(ranges, patience_s)


def _read_all(ranges: Sequence[Range], patience_s: float) -> list[bytes]:
    found: list[bytes | None] = [None] * len(ranges)
    patience = Patience(ranges[0].url, patience_s)
    while missing := [number for number, data in enumerate(found) if data is None]:
        trouble: Exception | None = None
        for number, answer in zip(missing, _ask([ranges[n] for n in missing]), strict=True):
            if isinstance(answer, bytes):
                found[number] = answer
                count(ReadTraffic(requests=1, bytes=len(answer)))
                patience.succeeded()
                continue
            count(ReadTraffic(requests=1, retries=1))
            with storage.explained(ranges[number].url, "read"):
                if not is_passing(answer):
                    raise answer
            trouble = answer
        if trouble is not None and not patience.wait(trouble):
            with storage.explained(patience.url, f"read (asked for {patience_s:.0f} s)"):
                raise trouble
    return [data for data in found if data is not None]


def _ask(ranges: Sequence[Range]) -> list[bytes | Exception]:
    """One try for each range."""
    fs, _ = storage.open_fs(ranges[0].url, attempts=1)
    paths = [storage.open_fs(part.url, attempts=1)[1] for part in ranges]
    starts, stops = [part.start for part in ranges], [part.stop for part in ranges]
    at_once = {"batch_size": storage.RANGES_AT_ONCE} if fs.async_impl else {}
    answers = fs.cat_ranges(paths, starts, stops, on_error="return", **at_once)
    return [_checked_length(part, answer) for part, answer in zip(ranges, answers, strict=True)]


def _checked_length(part: Range, answer: bytes | Exception) -> bytes | Exception:
    """The answer; an error where a body ended early, though the file does not."""
    if isinstance(answer, bytes) and len(answer) == part.stop - part.start:
        return answer
    if isinstance(answer, bytes) or (isinstance(answer, OSError) and answer.errno == errno.EINVAL):
        there = max(0, min(part.stop, storage.size(part.url)) - part.start)
        data = answer if isinstance(answer, bytes) else b""
        if len(data) == there:
            return data
        return TimeoutError(f"the answer ended after {len(data)} of {there} bytes")
    return answer
