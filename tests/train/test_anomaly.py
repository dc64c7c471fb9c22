"""Steps that went wrong are found, named and counted."""

import math

import pytest
import torch

from retfound_dist.errors import TrainingError
from retfound_dist.train.anomaly import LEAST, Anomalies, StepRecord
from retfound_dist.train.group import Group
from retfound_dist.world import World

ALONE = Group(World(), torch.device("cpu"))


def record(step: int, loss: float, norm: float = 1.0, bad: int | None = None) -> StepRecord:
    losses = torch.full((3,), loss / 3 if math.isfinite(loss) else 0.5)
    if bad is not None:
        losses[bad] = math.nan
    total = torch.tensor(loss, dtype=torch.float64)
    return StepRecord(step, total, torch.tensor(norm), 0, ["a", "b", "c"], [losses])


def test_a_step_that_is_not_finite_is_named_with_its_samples() -> None:
    watch = Anomalies(budget=5, global_batch=3)
    found = watch.reckon([record(1, 3.0), record(2, math.nan, math.inf, bad=1), record(3, 6.0)], ALONE)
    assert found.losses[0] == 1.0
    assert math.isnan(found.losses[1])
    assert found.losses[2] == 2.0
    assert found.grad_norm == 1.0
    assert found.anomalies == [
        {
            "kind": "skipped",
            "step": 2,
            "loss": None,
            "grad_norm": None,
            "keys": ["a", "b", "c"],
            "suspects": ["b"],
        }
    ]
    assert watch.skipped == 1


def test_an_infinite_gradient_of_a_finite_loss_is_a_skipped_step() -> None:
    watch = Anomalies(budget=5, global_batch=3)
    found = watch.reckon([record(1, 3.0, math.inf)], ALONE)
    assert [(a["kind"], a["loss"], a["suspects"]) for a in found.anomalies] == [("skipped", 1.0, [])]
    assert found.grad_norm is None


def test_over_the_budget_the_run_stops_and_says_where_to_look() -> None:
    watch = Anomalies(budget=2, global_batch=3, before=[{"kind": "skipped", "step": 4}])
    watch.reckon([record(7, math.nan)], ALONE)
    watch.check()
    watch.reckon([record(9, math.nan)], ALONE)
    with pytest.raises(TrainingError, match=r"3 steps .*bad_step_budget=2.*batch CONFIG --step 9"):
        watch.check()


def test_a_step_done_again_after_a_restart_counts_once() -> None:
    watch = Anomalies(budget=2, global_batch=3, before=[{"kind": "skipped", "step": 4}])
    watch.reckon([record(4, math.nan)], ALONE)
    assert watch.skipped == 1


def test_a_leap_of_the_loss_is_marked_and_noise_is_not() -> None:
    watch, draw = Anomalies(budget=2, global_batch=3), torch.Generator().manual_seed(0)
    noise = (3 * (1 + 0.02 * torch.randn(3 * LEAST, generator=draw))).tolist()
    for step, loss in enumerate(noise, 1):
        assert not watch.reckon([record(step, loss)], ALONE).anomalies
    found = watch.reckon([record(900, 3 * 1.6)], ALONE).anomalies
    assert [(a["kind"], a["step"]) for a in found] == [("spike", 900)]
    assert watch.skipped == 0


def test_a_leap_right_after_a_restart_is_marked_as_it_would_have_been() -> None:
    before, draw = Anomalies(budget=2, global_batch=3), torch.Generator().manual_seed(0)
    for step, loss in enumerate((3 * (1 + 0.02 * torch.randn(2 * LEAST, generator=draw))).tolist(), 1):
        before.reckon([record(step, loss)], ALONE)
    watch = Anomalies(budget=2, global_batch=3)
    watch.recall(before.state())
    assert [a["kind"] for a in watch.reckon([record(900, 3 * 1.6)], ALONE).anomalies] == ["spike"]
