"""p values of the bootstrap, and Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from retfound_dist.evaluate.scores.multiple_comparisons import (
    adjust_by_holm,
    smallest_bootstrap_p,
    two_sided_p,
)


def test_holm_gives_the_adjusted_values_of_a_worked_example() -> None:
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1; the last is raised to the one before it.
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_by_holm([0.6, 0.7]) == [1.0, 1.0]
    assert adjust_by_holm([]) == []


def test_an_undefined_comparison_does_not_count() -> None:
    assert adjust_by_holm([None, 0.01, 0.04]) == [None, 0.02, 0.04]


def test_p_is_twice_the_smaller_tail_and_never_0() -> None:
    difference_R = np.array([-1.0] * 2 + [1.0] * 97)
    assert two_sided_p(difference_R) == two_sided_p(-difference_R) == pytest.approx(2 * 3 / 100)
    assert two_sided_p(np.ones(99)) == pytest.approx(0.02) == smallest_bootstrap_p(99)
    assert two_sided_p(np.zeros(99)) == 1.0


def test_p_agrees_with_the_normal_distribution_of_the_difference() -> None:
    draws = np.random.default_rng(0).normal(0.05, 0.03, 200_000)
    assert two_sided_p(draws) == pytest.approx(2 * stats.norm.sf(0.05 / 0.03), rel=0.02)


def test_p_is_undefined_where_the_interval_is() -> None:
    assert two_sided_p(np.full(50, np.nan)) is None
    some = np.where(np.arange(100) < 10, np.nan, 1.0)
    assert two_sided_p(some) == pytest.approx(2 / 91)
