"""A separate process that fetches shards ahead of a rank's loader processes.

Python's lock lets one thread of a process run at a time, so fetching and decoding in one process slow each
other. The rank sends the step it is at. The process answers each time with what has happened since.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from retfound_dist.io import byte_ranges
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.stream.stream_spec import StreamSpec
from retfound_dist.stream.worker_processes import WorkerSetup, fork_server


@dataclass(frozen=True)
class FetchReport:
    """Notes for a person and bytes read, since the report before."""

    notes: tuple[str, ...]
    traffic: ReadTraffic


class FetchProcess:
    """The rank's end of the pipe; the process ends when this is dropped."""

    def __init__(self, spec: StreamSpec) -> None:
        context = fork_server(spec.manifest.url)
        self._here, there = context.Pipe()
        self._step = -1
        self.process = context.Process(target=_fetch, args=(spec, there, WorkerSetup()), daemon=True)
        self.process.start()
        # Only the process may hold that end: then its death is an EOFError here, and ours one there.
        there.close()

    def at(self, step: int) -> FetchReport:
        """Tell the process that the rank is at this step; returns the reports that have arrived."""
        total = FetchReport((), ReadTraffic())
        try:
            # Whatever lies there, and no waiting: the training loop calls this at every micro-batch.
            while self._here.poll():
                report: FetchReport = self._here.recv()
                total = FetchReport(total.notes + report.notes, total.traffic + report.traffic)
            if step != self._step:
                self._step = step
                self._here.send(step)
        except (EOFError, OSError):
            # The process died. That is no error: the loader processes fetch what they need themselves.
            return total
        return total


def _fetch(spec: StreamSpec, steps: Connection, begin: WorkerSetup) -> None:
    begin()
    prefetcher, reported = spec.prefetcher(), ReadTraffic()
    with suppress(EOFError, OSError):
        while True:
            prefetcher.at(steps.recv())
            # One by one and never by iteration: the prefetcher's threads append meanwhile.
            notes = tuple(prefetcher.notes.popleft() for _ in range(len(prefetcher.notes)))
            total = byte_ranges.traffic()
            steps.send(FetchReport(notes, total - reported))
            reported = total
