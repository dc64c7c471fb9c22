"""What the streams of all ranks report."""

import pytest
import torch

from retfound_dist.errors import DataError
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.logs.telemetry import training_display
from retfound_dist.train.ranks.collectives import RankGroup

ALONE = RankGroup(World(), torch.device("cpu"))


def batch(*faults: str, notes: tuple[str, ...] = (), traffic: ReadTraffic | None = None) -> MicroBatch:
    empty = torch.empty(0)
    return MicroBatch(0, empty, empty, empty, [], 0, list(faults), list(notes), traffic or ReadTraffic())


def test_bad_samples_are_named_once_and_requests_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    sample_faults, display = SampleFaults(budget=5), training_display(shown=False)
    sample_faults.add(batch("a.tar/k1: cut short", traffic=ReadTraffic(3, 1000, 1)))
    sample_faults.add(batch("a.tar/k1: cut short", "b.tar/k2: no image", traffic=ReadTraffic(1, 500, 0)))
    row = sample_faults.report(ALONE, display)
    assert row == {"bad_samples": 2, "fetched_bytes": 1500, "storage_retries": 1}
    assert sample_faults.report(ALONE, display) == {
        "bad_samples": 2,
        "fetched_bytes": 0,
        "storage_retries": 0,
    }
    printed = capsys.readouterr().err
    assert printed.count("k1") == 1
    assert "bad sample 2 of 5 allowed" in printed


def test_over_the_budget_the_last_is_named() -> None:
    sample_faults = SampleFaults(budget=1)
    sample_faults.add(batch("a.tar/k1: cut short", "b.tar/k2: no image"))
    with pytest.raises(DataError, match=r"2 samples .*bad_sample_budget=1.*b\.tar/k2"):
        sample_faults.report(ALONE, training_display(shown=False))


def test_a_remark_is_passed_on_once(capsys: pytest.CaptureFixture[str]) -> None:
    sample_faults, display = SampleFaults(budget=1), training_display(shown=False)
    for _ in range(3):
        sample_faults.add(batch(notes=("no room for more shards",)))
        sample_faults.report(ALONE, display)
    assert capsys.readouterr().err.count("no room") == 1


def test_after_a_restart_the_count_goes_on_and_what_was_counted_counts_once() -> None:
    before, display = SampleFaults(budget=2), training_display(shown=False)
    before.add(batch("a.tar/k1: cut short"))
    before.report(ALONE, display)
    sample_faults = SampleFaults(budget=2)
    sample_faults.load_state(before.state())
    sample_faults.add(batch("a.tar/k1: cut short", "b.tar/k2: no image"))
    assert sample_faults.report(ALONE, display)["bad_samples"] == 2
    sample_faults.add(batch("c.tar/k3: no image"))
    with pytest.raises(DataError, match="3 samples"):
        sample_faults.report(ALONE, display)
