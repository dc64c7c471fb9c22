"""Ranks over sets, against scipy, against enumeration and against Demsar's worked example."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from retfound_dist.evaluate.suite.rank_statistics import (
    count_wins,
    friedman_p,
    nemenyi_difference,
    rank_summary,
    ranks_by_set,
    signed_rank_p,
    smallest_p,
)
from tests.evaluate.suite.compared_sets import compared_sets

DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip
"""AUROC of four classifiers on 14 sets: Demsar (2006), table 6.

One pair of rounded values is equal there, but its ranks are 2 and 3: a digit is added here."""


def enumerated_p(difference_S: np.ndarray) -> float:
    """The signed-rank test by its definition: the rank sums of all signs."""
    nonzero = difference_S[difference_S != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    sums = np.array([ranks @ np.array(signs) for signs in product((0, 1), repeat=len(nonzero))])
    observed, middle = ranks @ (nonzero > 0), ranks.sum() / 2
    return float((np.abs(sums - middle) >= abs(observed - middle) - 1e-9).mean())


def test_mean_ranks_and_critical_difference_are_those_of_demsars_example() -> None:
    assert ranks_by_set(DEMSAR).mean(0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert nemenyi_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    # Friedman's statistic is 9.28 in the article, which does not correct for ties.
    p = friedman_p(DEMSAR)
    assert p is not None
    assert p == pytest.approx(stats.chi2.sf(9.28, 3), abs=0.01)


def test_nemenyi_uses_the_quantiles_of_demsars_table() -> None:
    for rows, quantile in ((2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)):
        difference = nemenyi_difference(rows, 6)
        assert difference == pytest.approx(quantile * np.sqrt(rows * (rows + 1) / 36), abs=1e-3)
    assert nemenyi_difference(1, 5) is nemenyi_difference(3, 0) is None


def test_equal_scores_share_the_mean_of_their_ranks() -> None:
    ranks = ranks_by_set(np.array([[0.9, 0.8, 0.8], [0.5, 0.5, 0.5]]))
    assert ranks.tolist() == [[1.0, 2.5, 2.5], [2.0, 2.0, 2.0]]


@pytest.mark.parametrize("sets", [2, 5, 8])
@pytest.mark.parametrize("digits", [1, 6])
def test_p_of_few_sets_is_exact_with_and_without_equal_differences(sets: int, digits: int) -> None:
    draw = np.random.default_rng(sets)
    for _ in range(5):
        difference = draw.normal(0.1, 0.2, sets).round(digits)
        if difference.any():
            assert signed_rank_p(difference) == pytest.approx(enumerated_p(difference))


def test_p_without_ties_is_scipys() -> None:
    difference = DEMSAR[:, 3] - DEMSAR[:, 1] + np.arange(14) * 1e-6 + 1e-7
    assert signed_rank_p(difference) == pytest.approx(stats.wilcoxon(difference).pvalue)


def test_many_sets_with_ties_use_the_normal_approximation() -> None:
    difference = np.repeat([0.1, -0.1, 0.2, 0.3], 10)
    assert signed_rank_p(difference) == pytest.approx(stats.wilcoxon(difference, method="asymptotic").pvalue)


def test_five_sets_cannot_give_less_than_a_sixteenth() -> None:
    assert smallest_p(5) == 0.0625 == signed_rank_p(np.arange(1.0, 6.0))
    assert smallest_p(6) == signed_rank_p(np.arange(1.0, 7.0)) < 0.05
    assert smallest_p(1) == smallest_p(0) == signed_rank_p(np.ones(1)) == signed_rank_p(np.zeros(4)) == 1.0


def test_wins_are_clear_differences_and_all_else_is_a_tie() -> None:
    sets = compared_sets(["a", "b"], [[0.9, 0.5], [0.5, 0.9], [0.9, 0.6], [0.80, 0.81], [0.7, None]])
    assert count_wins("aupr", "a", "b", list(sets.values())) == (2, 2, 1)
    assert count_wins("aupr", "b", "a", list(sets.values())) == (1, 2, 2)


def test_a_summary_leaves_out_sets_with_an_undefined_score_and_names_them() -> None:
    sets = compared_sets(["a", "b", "c"], [[0.9, 0.5, 0.4], [0.9, None, 0.3], [0.8, 0.6, 0.6]])
    summary = rank_summary("aupr", sets)
    assert (summary["sets"], summary["undefined"]) == (["s0", "s2"], ["s1"])
    assert summary["mean_rank"] == {"a": 1.0, "b": 2.25, "c": 2.75}
    assert [(p["one"], p["other"], p["wins"], p["ties"], p["losses"]) for p in summary["pairs"]] == [
        ("a", "b", 2, 0, 0), ("a", "c", 2, 0, 0), ("b", "c", 1, 1, 0)]  # fmt: skip
    assert [p["p"] for p in summary["pairs"]] == [0.5, 0.5, 1.0]
    assert {p["p_holm"] for p in summary["pairs"]} == {1.0}


def test_one_set_one_row_and_no_defined_score_are_summaries_too() -> None:
    one_set = rank_summary("aupr", compared_sets(["a", "b"], [[0.9, 0.5]]))
    assert (one_set["mean_rank"], one_set["friedman_p"], one_set["smallest_p"]) == (
        {"a": 1.0, "b": 2.0},
        None,
        1.0,
    )
    one_row = rank_summary("aupr", compared_sets(["a"], [[0.9], [0.8]]))
    assert (one_row["mean_rank"], one_row["pairs"], one_row["critical_difference"]) == ({"a": 1.0}, [], None)
    nothing = rank_summary("aupr", compared_sets(["a", "b"], [[None, 0.5]]))
    assert (nothing["sets"], nothing["mean_rank"], nothing["undefined"]) == ([], {}, ["s0"])
    assert [p["p"] for p in nothing["pairs"]] == [None]


def test_rows_that_are_always_equal_have_no_friedman_p() -> None:
    assert friedman_p(np.ones((4, 3))) is None
    assert friedman_p(np.ones((4, 2))) is None
