"""A separate process that fetches shards ahead of a rank's loader processes.

Python's global lock lets one thread of a process run at a time, so fetching and decoding in one process slow
each other down. The rank sends its step. The process answers with a report on the time since the last one.
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
    """Notes for the user and traffic, since the report before."""

    notes: tuple[str, ...]
    traffic: ReadTraffic


class FetchProcess:
    """The rank's end of the pipe; the process ends when this object is deleted."""

    def __init__(self, spec: StreamSpec) -> None:
        context = fork_server(spec.manifest.url)
        self._connection, process_end = context.Pipe()
        self._step = -1
        arguments = (spec, process_end, WorkerSetup())
        self.process = context.Process(target=_run_prefetcher, args=arguments, daemon=True)
        self.process.start()
        # Only the process may keep its end open: then each side gets an EOFError when the other one dies.
        process_end.close()

    def set_step(self, step: int) -> FetchReport:
        """Send the step of the rank; returns the sum of the reports that have arrived."""
        total = FetchReport((), ReadTraffic())
        try:
            # Without waiting: the training loop calls this at every micro-batch.
            while self._connection.poll():
                report: FetchReport = self._connection.recv()
                total = FetchReport(total.notes + report.notes, total.traffic + report.traffic)
            if step != self._step:
                self._step = step
                self._connection.send(step)
        except (EOFError, OSError):
            # The process died. That is not an error: the loader processes can fetch the shards themselves.
            return total
        return total


def _run_prefetcher(spec: StreamSpec, steps: Connection, worker_setup: WorkerSetup) -> None:
    """The process's loop: fetch for each step that it receives, and answer with a report."""
    worker_setup()
    prefetcher, reported = spec.prefetcher(), ReadTraffic()
    with suppress(EOFError, OSError):
        while True:
            prefetcher.set_step(steps.recv())
            # One by one, not by iteration: the prefetcher's threads append at the same time.
            notes = tuple(prefetcher.notes.popleft() for _ in range(len(prefetcher.notes)))
            total = byte_ranges.traffic_so_far()
            steps.send(FetchReport(notes, total - reported))
            reported = total
