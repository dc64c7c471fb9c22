"""A process of its own that fetches shards ahead of a rank's loader processes.

Python's lock lets one thread of a process run at a time: fetching beside decoding in one process slows
both. The rank tells the step it is at; the process answers each time with its news.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from retfound_dist.io import byte_ranges
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.stream.stream_spec import StreamSpec
from retfound_dist.stream.worker_processes import Begin, fork_server


@dataclass(frozen=True)
class News:
    """What has happened since the last answer."""

    notes: tuple[str, ...]
    traffic: ReadTraffic


class Fetcher:
    """The rank's end; the process ends when this is dropped."""

    def __init__(self, job: StreamSpec) -> None:
        context = fork_server(job.manifest.url)
        self._here, there = context.Pipe()
        self._step = -1
        self.process = context.Process(target=_fetch, args=(job, there, Begin()), daemon=True)
        self.process.start()
        there.close()

    def at(self, step: int) -> News:
        """The rank is at this step; gives what has been heard since it last said so."""
        news = News((), ReadTraffic())
        try:
            while self._here.poll():
                heard: News = self._here.recv()
                news = News(news.notes + heard.notes, news.traffic + heard.traffic)
            if step != self._step:
                self._step = step
                self._here.send(step)
        except (EOFError, OSError):
            return news  # it died: the loader processes fetch what they need themselves
        return news


def _fetch(job: StreamSpec, steps: Connection, begin: Begin) -> None:
    begin()
    prefetcher, told = job.prefetcher(), ReadTraffic()
    with suppress(EOFError, OSError):
        while True:
            prefetcher.at(steps.recv())
            notes = tuple(prefetcher.notes.popleft() for _ in range(len(prefetcher.notes)))
            total = byte_ranges.traffic()
            steps.send(News(notes, total - told))
            told = total
