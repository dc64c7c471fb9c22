"""What checkpoints and failures cost: numbers worked out by hand, limits, and which way things go."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling_costs import (
    ASSUMPTIONS,
    FailureRate,
    best_interval,
    checkpoint_cost,
    efficiency,
    goodput,
)
from retfound_dist.plan.forecast import Shape, forecast
from tests.plan.test_forecast import NODE, STAGES, VIT_L, shape

HOUR = 3600.0


def test_a_save_worked_out_by_hand() -> None:
    # 8 ranks: 2 + 12/8 = 3.5 bytes of 330e6 parameters: 1.155 GB; at 20 GB/s 57.75 ms. Behind the run that, an
    # eighth of the weights' 1.32 GB, and twice all of them, at 0.5 GB/s: (1.155 + 0.165 + 2.64) / 0.5
    cost = checkpoint_cost(VIT_L, shape(VIT_L, 8, 1), 20e9, 5e8)
    assert cost.bytes == pytest.approx(1.155e9)
    assert cost.stall_s == pytest.approx(0.05775)
    assert cost.behind_s == pytest.approx(7.92)


def test_one_rank_copies_most() -> None:
    assert checkpoint_cost(VIT_L, shape(VIT_L, 1, 1), 20e9, 5e8).bytes == 14 * 330e6


def test_the_best_interval_is_young_s() -> None:
    # 10 nodes that fail every 1,000 h each: every 100 h; a stall of 18 s: sqrt(2 x 18 x 360,000) = 3,600 s
    failures = FailureRate(node_mtbf_s=1000 * HOUR, nodes=10, stall_s=18, restart_s=300)
    assert failures.mtbf_s == 100 * HOUR
    assert best_interval(failures) == 3600


def test_goodput_worked_out_by_hand() -> None:
    # every 10 h: 360 s to restart and half of 3,600 s again is 6 % of 36,000 s; stalls take 36 s in 3,636
    failures = FailureRate(node_mtbf_s=100 * HOUR, nodes=10, stall_s=36, restart_s=360)
    assert goodput(HOUR, failures) == pytest.approx(0.94 / 1.01)


def test_a_checkpoint_counts_from_its_commit_on() -> None:
    # as above, and what was done in the 360 s until the commit is done again: another 1 % of 36,000 s
    failures = FailureRate(node_mtbf_s=100 * HOUR, nodes=10, stall_s=36, restart_s=360, behind_s=360)
    assert goodput(HOUR, failures) == pytest.approx(0.93 / 1.01)


def test_a_save_that_comes_too_soon_waits_for_the_one_before() -> None:
    never = FailureRate(node_mtbf_s=math.inf, nodes=8, stall_s=1, restart_s=600, behind_s=10)
    assert [never.stall(interval) for interval in (4, 10, 100)] == [7, 1, 1]
    assert goodput(4, never) == pytest.approx(4 / 11)
    assert goodput(10, never) == pytest.approx(10 / 11)
    often = FailureRate(node_mtbf_s=1000, nodes=10, stall_s=0.01, restart_s=0, behind_s=10)
    assert best_interval(often) == 10  # Young says 1.4 s


def test_without_failures_only_the_stalls_are_lost() -> None:
    never = FailureRate(node_mtbf_s=math.inf, nodes=8, stall_s=10, restart_s=600)
    assert goodput(990, never) == pytest.approx(1 - 10 / 1000)


def test_a_run_that_fails_before_its_checkpoint_does_not_advance() -> None:
    assert goodput(HOUR, FailureRate(node_mtbf_s=HOUR, nodes=4, stall_s=10, restart_s=600)) == 0


rates = st.builds(
    FailureRate,
    node_mtbf_s=st.floats(HOUR, 10_000 * HOUR),
    nodes=st.integers(1, 100),
    stall_s=st.floats(0.1, 60),
    restart_s=st.floats(0, 1800),
    behind_s=st.floats(0, 60),
)
intervals = st.floats(1, 100_000)


@given(rates, intervals, st.floats(1, 10))
def test_more_trouble_is_never_better(failures: FailureRate, interval: float, times: float) -> None:
    kept = goodput(interval, failures)
    assert 0 <= kept < 1
    for name in ("stall_s", "restart_s", "behind_s"):
        worse = replace(failures, **{name: getattr(failures, name) * times})
        assert goodput(interval, worse) <= kept
    assert goodput(interval, replace(failures, node_mtbf_s=failures.node_mtbf_s * times)) >= kept
    assert goodput(interval, replace(failures, nodes=failures.nodes + 1)) <= kept


@given(rates, intervals)
def test_no_interval_beats_the_best_by_more_than_its_order(failures: FailureRate, interval: float) -> None:
    best = goodput(best_interval(failures), failures)
    slack = 2 * (failures.stall_s + failures.restart_s + failures.behind_s) / failures.mtbf_s
    assert goodput(interval, failures) <= best + slack


@pytest.mark.parametrize("stage", STAGES)
def test_one_rank_is_perfectly_efficient_and_ever_more_are_not(stage: int) -> None:
    one = forecast(VIT_L, shape(VIT_L, 1, stage), NODE)
    most = Shape(10**9, 1, 1, stage)
    assert efficiency(one, one, 1) == 1
    assert efficiency(one, forecast(VIT_L, most, NODE), most.ranks) < 1e-6


def test_the_assumptions_are_sentences() -> None:
    assert all(text.endswith(".") and text[0].isupper() for text in ASSUMPTIONS)
