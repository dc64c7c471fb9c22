"""Steps that went wrong are found, named and counted."""

import math

import pytest
import torch

from retfound_dist.errors import TrainingError
from retfound_dist.runtime.world import World
from retfound_dist.train.health.anomalies import MIN_HISTORY, Anomalies, StepRecord
from retfound_dist.train.ranks.collectives import RankGroup

ALONE = RankGroup(World(), torch.device("cpu"))


def record(step: int, loss: float, norm: float = 1.0, bad: int | None = None) -> StepRecord:
    losses = torch.full((3,), loss / 3 if math.isfinite(loss) else 0.5)
    if bad is not None:
        losses[bad] = math.nan
    total = torch.tensor(loss, dtype=torch.float64)
    return StepRecord(step, total, torch.tensor(norm), 0, ["a", "b", "c"], [losses])


def test_a_step_that_is_not_finite_is_named_with_its_samples() -> None:
    watch = Anomalies(budget=5, global_batch=3)
    summary = watch.summarize([record(1, 3.0), record(2, math.nan, math.inf, bad=1), record(3, 6.0)], ALONE)
    assert summary.losses[0] == 1.0
    assert math.isnan(summary.losses[1])
    assert summary.losses[2] == 2.0
    assert summary.grad_norm == 1.0
    assert summary.anomalies == [
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
    summary = watch.summarize([record(1, 3.0, math.inf)], ALONE)
    assert [(a["kind"], a["loss"], a["suspects"]) for a in summary.anomalies] == [("skipped", 1.0, [])]
    assert summary.grad_norm is None


def test_over_the_budget_the_run_stops_and_says_where_to_look() -> None:
    watch = Anomalies(budget=2, global_batch=3, earlier_rows=[{"kind": "skipped", "step": 4}])
    watch.summarize([record(7, math.nan)], ALONE)
    watch.check()
    watch.summarize([record(9, math.nan)], ALONE)
    with pytest.raises(TrainingError, match=r"3 steps .*bad_step_budget=2.*batch CONFIG --step 9"):
        watch.check()


def test_a_step_done_again_after_a_restart_counts_once() -> None:
    watch = Anomalies(budget=2, global_batch=3, earlier_rows=[{"kind": "skipped", "step": 4}])
    watch.summarize([record(4, math.nan)], ALONE)
    assert watch.skipped == 1


def test_a_leap_of_the_loss_is_marked_and_noise_is_not() -> None:
    watch, draw = Anomalies(budget=2, global_batch=3), torch.Generator().manual_seed(0)
    noise = (3 * (1 + 0.02 * torch.randn(3 * MIN_HISTORY, generator=draw))).tolist()
    for step, loss in enumerate(noise, 1):
        assert not watch.summarize([record(step, loss)], ALONE).anomalies
    summary = watch.summarize([record(900, 3 * 1.6)], ALONE).anomalies
    assert [(a["kind"], a["step"]) for a in summary] == [("spike", 900)]
    assert watch.skipped == 0


def test_a_leap_right_after_a_restart_is_marked_as_it_would_have_been() -> None:
    before, draw = Anomalies(budget=2, global_batch=3), torch.Generator().manual_seed(0)
    for step, loss in enumerate((3 * (1 + 0.02 * torch.randn(2 * MIN_HISTORY, generator=draw))).tolist(), 1):
        before.summarize([record(step, loss)], ALONE)
    watch = Anomalies(budget=2, global_batch=3)
    watch.load_state(before.state())
    assert [a["kind"] for a in watch.summarize([record(900, 3 * 1.6)], ALONE).anomalies] == ["spike"]


def judged(before: list[float], loss: float) -> bool:
    """Whether a loss after these is a leap."""
    watch = Anomalies(budget=2, global_batch=1)
    watch.summarize([record(step, value) for step, value in enumerate(before, 1)], ALONE)
    summary = watch.summarize([record(999, loss)], ALONE).anomalies
    return [a["kind"] for a in summary] == ["spike"]


@pytest.mark.parametrize(
    ("before", "threshold"),
    [
        ([2.9, 3.0, 3.1] * 20, 3.8),  # median 3, median distance from it 0.1: 3 + 8 x 0.1
        ([3.0] * 60, 3.024),  # no spread: a thousandth of the median stands for it
        ([-3.0] * 60, -2.976),
        ([3.0] * 60 + [math.nan, math.inf] * 5, 3.024),  # what is not finite counts for nothing
        ([50.0] * 150 + [3.0] * 101, 3.024),  # of the last 200 more than half are 3
    ],
)
def test_a_leap_is_eight_usual_spreads_above_the_median_of_the_last_200(
    before: list[float], threshold: float
) -> None:
    assert not judged(before, threshold - 1e-4)
    assert judged(before, threshold + 1e-4)
    assert not judged(before, min(before) - 10)


def test_the_first_fifty_losses_are_not_judged() -> None:
    assert not judged([3.0] * (MIN_HISTORY - 1), 1000.0)
    assert judged([3.0] * MIN_HISTORY, 1000.0)
    assert MIN_HISTORY == 50


def test_the_gradients_norm_is_the_last_steps_and_every_loss_is_given_in_order() -> None:
    watch = Anomalies(budget=2, global_batch=4)
    summary = watch.summarize(
        [record(1, 4.0, norm=1.5), record(2, 8.0, norm=2.5), record(3, 2.0, norm=3.5)], ALONE
    )
    assert summary.losses == [1.0, 2.0, 0.5]
    assert summary.grad_norm == 3.5
    assert watch.summarize([record(4, 1.0, norm=1.0), record(5, 1.0, norm=math.inf)], ALONE).grad_norm is None


def test_all_bad_samples_of_several_passes_are_suspects_and_of_a_new_record_none() -> None:
    passes = [torch.tensor([1.0, math.nan]), torch.tensor([math.inf, 1.0, 1.0])]
    bad = StepRecord(1, torch.tensor(1.0), torch.tensor(1.0), 0, ["a", "b", "c", "d"], passes)
    assert bad.suspects() == ["b", "c"]  # the last place is padding: it has no key
    first, second = (StepRecord(n, torch.tensor(1.0), torch.tensor(1.0), 0) for n in (1, 2))
    first.keys.append("x")
    first.losses.append(torch.ones(1))
    assert (second.keys, second.losses, second.suspects()) == ([], [], [])


def test_a_spike_of_an_earlier_start_is_no_skipped_step() -> None:
    assert (
        Anomalies(2, 3, earlier_rows=[{"kind": "spike", "step": 4}, {"kind": "skipped", "step": 5}]).skipped
        == 1
    )
