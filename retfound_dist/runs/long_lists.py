"""Reads and prints lists of many runs: several at a time, with progress, as plain text."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay

AT_ONCE = 32
"""Runs on an object store that are asked for at the same time."""
MANY = 200
"""From so many runs on the list is plain text: rich takes a millisecond a line."""
SLOW_S = 5.0
"""What takes longer says how far it is."""
Tick = Callable[[int, int], None]
T = TypeVar("T")


def read_each(
    urls: Sequence[str], one: Callable[[str], T], tick: Tick | None = None
) -> Iterator[T | Exception]:
    """What `one` says of each run in order, or its error; of runs on an object store several at a time."""

    def tried(url: str) -> T | Exception:
        try:
            return one(url)
        except Exception as error:  # other programs' files hold anything: one must not hide the rest
            return error

    def told(results: Iterator[T | Exception]) -> Iterator[T | Exception]:
        for done, run in enumerate(results, start=1):
            yield run
            if tick is not None:
                tick(done, len(urls))

    # Threads help where reading is waiting for a store. Local files are read as fast by one.
    if not urls or storage.is_local(urls[0]):
        yield from told(map(tried, urls))
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from told(pool.map(tried, urls))


class Progress:
    """Says on the error stream how far reading is, once it has taken SLOW_S."""

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.monotonic()
        self._show: ProgressDisplay | None = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` are read."""
        if self._show is None and time.monotonic() - self._began > SLOW_S and done < total:
            # On the error stream: the output may be JSON for another program.
            self._show = ProgressDisplay(stream=sys.stderr).__enter__()
            self._show.begin(self._what, self._began)
        if self._show is not None:
            self._show.advance(done, total)
            if done == total:
                self._show.__exit__(None, None, None)


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> Iterator[str]:
    """Lines with the columns below each other; the first `left` of them lean to the left."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def plain_line(text: str, style: str = "") -> None:
    """A line without its style."""
    print(text)


def texts(settings: Mapping[str, Any], known: dict[Any, str]) -> dict[str, str]:
    """Each setting as JSON; `known` keeps what was written before."""
    written = {}
    for key, value in settings.items():
        try:
            # With its type: 1, 1.0 and True are one key in a dict, and three different texts.
            written[key] = known[type(value), value]
        except KeyError:
            written[key] = known[type(value), value] = json.dumps(value)
        except TypeError:  # lists and tables
            written[key] = json.dumps(value)
    return written
