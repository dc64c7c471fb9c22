"""Collects the reports of all ranks' streams: bad samples and their budget, traffic, notes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from retfound_dist.errors import DataError, TrainingError
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.runtime.progress import ProgressDisplay
from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train.ranks.collectives import RankGroup


class SampleFaults:
    """Each rank collects its own reports; at a logged step all ranks exchange them."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bad_samples: dict[str, None] = {}
        self._new_faults: list[str] = []
        self._notes: list[str] = []
        self._shown_notes: set[str] = set()
        self._traffic = ReadTraffic()

    def state(self) -> list[str]:
        """The bad samples so far, which a later start of the run needs."""
        return list(self._bad_samples)

    def load_state(self, bad_samples: Sequence[str]) -> None:
        """Continue from the bad samples of an earlier start."""
        self._bad_samples = dict.fromkeys(bad_samples)

    def add(self, batch: MicroBatch) -> None:
        """Add the reports of one micro-batch."""
        self._new_faults += batch.faults
        self._notes += batch.notes
        self._traffic += batch.traffic

    def report(self, group: RankGroup, display: ProgressDisplay) -> dict[str, int]:
        """Show new faults and notes; returns the sums over all ranks. Every rank must call it.

        DataError if more samples are bad than the budget allows.
        """
        sums = [len(self._new_faults), len(self._notes), self._traffic.bytes, self._traffic.retries]
        faults, notes, fetched_bytes, retries = (
            int(n) for n in group.sum(torch.tensor(sums, device=group.device)).tolist()
        )
        # Texts are gathered only if there are any: nearly always the ranks exchange only four numbers.
        if faults or notes:
            notes_of_ranks = group.gather(self._notes)
            for text in sorted({text for texts in notes_of_ranks for text in texts} - self._shown_notes):
                self._shown_notes.add(text)
                if group.world.is_main:
                    display.warn(text)
            for fault in sorted({fault for new in group.gather(self._new_faults) for fault in new}):
                self._report_fault(fault, group, display)
            self._new_faults, self._notes = [], []
        self._traffic = ReadTraffic()
        return {
            "bad_samples": len(self._bad_samples),
            "fetched_bytes": fetched_bytes,
            "storage_retries": retries,
        }

    def _report_fault(self, fault: str, group: RankGroup, display: ProgressDisplay) -> None:
        """Warn of a new bad sample; every rank raises once there are more than the budget allows."""
        if fault in self._bad_samples:
            return
        self._bad_samples[fault] = None
        number, budget = len(self._bad_samples), self._budget
        if group.world.is_main:
            display.warn(f"bad sample {number} of {budget} allowed, replaced: {fault}")
        if number > budget:
            # Every rank raises, so that none waits for the others.
            raise (DataError if group.world.is_main else TrainingError)(
                f"{number} samples could not be read, more than data.bad_sample_budget={budget}; "
                f"the last: {fault}; run `retfound verify` on the shards"
            )
