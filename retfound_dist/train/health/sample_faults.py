"""Collects what the streams of all ranks report: bad samples against their budget, traffic, remarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from retfound_dist.errors import DataError, TrainingError
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train.logs.telemetry import TrainingDisplay
from retfound_dist.train.ranks.collectives import RankGroup


class SampleFaults:
    """Each rank collects by itself; at a logged step all ranks report together."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._known: dict[str, None] = {}
        self._new: list[str] = []
        self._notes: list[str] = []
        self._said: set[str] = set()
        self._traffic = ReadTraffic()

    def state(self) -> list[str]:
        """What a later start of the run needs: the bad samples known so far."""
        return list(self._known)

    def load_state(self, known: Sequence[str]) -> None:
        """Go on from what an earlier start knew."""
        self._known = dict.fromkeys(known)

    def add(self, batch: MicroBatch) -> None:
        """Add what one micro-batch brought."""
        self._new += batch.faults
        self._notes += batch.notes
        self._traffic += batch.traffic

    def report(self, group: RankGroup, display: TrainingDisplay) -> dict[str, int]:
        """Name what is new and give the sums over all ranks; DataError over the budget. Every rank must call
        it."""
        sums = [len(self._new), len(self._notes), self._traffic.bytes, self._traffic.retries]
        faults, notes, fetched, retries = (
            int(n) for n in group.sum(torch.tensor(sums, device=group.device)).tolist()
        )
        # Texts are gathered only where there are any: nearly always four numbers are all that ranks exchange.
        if faults or notes:
            for text in sorted({text for texts in group.gather(self._notes) for text in texts} - self._said):
                self._said.add(text)
                if group.world.is_main:
                    display.warn(text)
            for fault in sorted({fault for new in group.gather(self._new) for fault in new}):
                self._name(fault, group, display)
            self._new, self._notes = [], []
        self._traffic = ReadTraffic()
        return {"bad_samples": len(self._known), "fetched_bytes": fetched, "storage_retries": retries}

    def _name(self, fault: str, group: RankGroup, display: TrainingDisplay) -> None:
        if fault in self._known:
            return
        self._known[fault] = None
        number, budget = len(self._known), self._budget
        if group.world.is_main:
            display.warn(f"bad sample {number} of {budget} allowed, replaced: {fault}")
        if number > budget:
            # Every rank raises, so none waits for the others.
            raise (DataError if group.world.is_main else TrainingError)(
                f"{number} samples could not be read, more than data.bad_sample_budget={budget}; "
                f"the last: {fault}; run `retfound verify` on the shards"
            )
