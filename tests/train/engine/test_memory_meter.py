"""What a process needs of memory, and what is free; tests/train/engine/test_micro_batch.py has real steps."""

from __future__ import annotations

import sys

import pytest
import torch

from retfound_dist.runtime.world import World
from retfound_dist.train.engine.memory_meter import MemoryMeter, free_bytes, release_freed_memory
from retfound_dist.train.ranks.collectives import RankGroup

MB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_counts_until_it_is_reset() -> None:
    release_freed_memory()
    meter = MemoryMeter(torch.device("cpu"))
    block = torch.ones(64 * MB, dtype=torch.uint8)
    del block
    assert meter.peak_bytes() == pytest.approx(64 * MB, rel=0.25)
    release_freed_memory()
    meter.reset()
    assert meter.peak_bytes() < 32 * MB


def test_ranks_of_a_host_share_what_is_free() -> None:
    alone = free_bytes(RankGroup(World(), torch.device("cpu")))
    shared = free_bytes(RankGroup(World(0, 4, 0, local_size=4), torch.device("cpu")))
    assert alone > 0
    assert shared == pytest.approx(alone / 4, rel=0.5)
