"""Reads and prints long lists of runs: in parallel, with progress, as plain text."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay

PARALLEL_READS = 32
"""Runs on an object store that are read at the same time."""
LONG_LIST = 200
"""With more runs than this the list is plain text: rich takes a millisecond a line."""
PROGRESS_AFTER_S = 5.0
"""Reading that takes longer shows its progress."""
ReadProgress = Callable[[int, int], None]
T = TypeVar("T")


def read_each(
    urls: Sequence[str], read_one: Callable[[str], T], on_progress: ReadProgress | None = None
) -> Iterator[T | Exception]:
    """The result of `read_one` for each URL in order, or its error; object stores are read in parallel."""

    def try_read(url: str) -> T | Exception:
        try:
            return read_one(url)
        except Exception as error:  # files of other programs hold anything: one must not hide the others
            return error

    def with_progress(results: Iterator[T | Exception]) -> Iterator[T | Exception]:
        for done, run in enumerate(results, start=1):
            yield run
            if on_progress is not None:
                on_progress(done, len(urls))

    # Threads help where reading waits for a store. They do not make local files faster.
    if not urls or storage.is_local(urls[0]):
        yield from with_progress(map(try_read, urls))
        return
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        yield from with_progress(pool.map(try_read, urls))


@contextmanager
def without_collector() -> Iterator[None]:
    """In the block Python does not search for cycles of objects.

    Runs have no cycles, and the more of them are in memory, the longer each search takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class DelayedProgress:
    """Shows how far reading is on the error stream, once it has taken `PROGRESS_AFTER_S`."""

    def __init__(self, title: str) -> None:
        self._title, self._began = title, time.monotonic()
        self._display: ProgressDisplay | None = None

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` are read."""
        if self._display is None and time.monotonic() - self._began > PROGRESS_AFTER_S and done < total:
            # On the error stream: the output may be JSON for another program.
            self._display = ProgressDisplay(stderr=True).__enter__()
            self._display.begin(self._title, since=self._began)
        if self._display is not None:
            self._display.advance(done, total)
            if done == total:
                self._display.__exit__(None, None, None)


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 2) -> Iterator[str]:
    """Lines with aligned columns: the first `text_columns` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (
            cell.ljust(width) if place < text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def plain_line(text: str, style: str = "") -> None:
    """Print a line without its style."""
    print(text)
