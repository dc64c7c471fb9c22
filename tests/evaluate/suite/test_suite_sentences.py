"""What a suite says in words, and what it must not claim."""

from __future__ import annotations

from typing import Any

import numpy as np

from retfound_dist.evaluate.suite.rank_statistics import rank_summary
from retfound_dist.evaluate.suite.suite_sentences import (
    joined_note,
    limit_sentences,
    rank_sentences,
    suite_sentences,
)
from tests.evaluate.suite.compared_sets import compared_sets


def summary(rows: list[str], table: list[list[float | None]]) -> dict[str, Any]:
    return rank_summary("aupr", compared_sets(rows, table))


def test_the_best_row_is_named_with_its_wins_losses_and_ties() -> None:
    table: list[list[float | None]] = [[0.9, 0.5], [0.8, 0.79], [0.5, 0.7], [0.9, 0.6]]
    (sentence,) = rank_sentences(summary(["ours", "none"], table))
    assert sentence == (
        "AUPR on 4 sets: “ours” has the best mean rank, 1.25 (1 is the best). Compared with “none”, it is clearly "
        "better on 2 sets, clearly worse on 1 set and not clearly different on 1 set."
    )


def test_rows_without_a_clear_difference_on_any_set_are_named_together() -> None:
    (sentence,) = rank_sentences(summary(["a", "b", "c"], [[0.82, 0.81, 0.80], [0.83, 0.82, 0.82]]))
    assert sentence.endswith("(1 is the best). On no set is it clearly different from “b” or “c”.")


def test_rows_that_share_the_best_rank_are_both_named() -> None:
    (sentence,) = rank_sentences(summary(["a", "b"], [[0.9, 0.5], [0.5, 0.9]]))
    assert sentence == "AUPR on 2 sets: “a” and “b” share the best mean rank, 1.50."


def test_five_sets_are_too_few_for_any_claim_from_ranks() -> None:
    (limit,) = limit_sentences(summary(["a", "b"], [[0.9, 0.1 * i] for i in range(5)]))
    assert "With 5 sets, the Wilcoxon signed-rank test cannot give a two-sided p below 0.0625" in limit
    assert "ranks alone cannot decide" in limit


def test_enough_sets_for_one_pair_may_be_too_few_for_many_pairs() -> None:
    draw = np.random.default_rng(0)
    table: list[list[float | None]] = draw.random((6, 4)).tolist()
    (limit,) = limit_sentences(summary(list("abcd"), table))
    assert "With 6 sets and 6 pairs of rows" in limit
    assert "cannot give a p below 0.19 after Holm's correction" in limit


def test_a_difference_over_many_sets_is_named_with_its_corrected_p() -> None:
    table: list[list[float | None]] = [
        [0.9 + 0.001 * i, 0.5, 0.501 - 0.0001 * (-1) ** i * i] for i in range(12)
    ]
    (found,) = limit_sentences(summary(["good", "x", "y"], table))
    assert "finds a difference after Holm's correction for 3 pairs: “good” and “x” (p 0.00" in found
    draw = np.random.default_rng(1)
    (nothing,) = limit_sentences(summary(["a", "b"], draw.random((8, 2)).tolist()))
    assert "finds no difference larger than chance." in nothing
    assert "Holm" not in nothing


def test_limits_are_said_once_for_all_scores() -> None:
    sets = compared_sets(["a", "b"], [[0.9, 0.5], [0.8, 0.7]])
    sentences = suite_sentences([rank_summary(metric, sets) for metric in ("aupr", "balanced_accuracy")])
    assert [s.split(" on ")[0] for s in sentences[:2]] == ["AUPR", "Balanced accuracy"]
    assert len(sentences) == 3


def test_one_set_and_one_row_claim_nothing() -> None:
    assert list(limit_sentences(summary(["a", "b"], [[0.9, 0.5]]))) == [
        "With one set, ranks say no more than the comparison on this set."
    ]
    one_row = summary(["a"], [[0.9], [0.8]])
    assert rank_sentences(one_row) == list(limit_sentences(one_row)) == []
    assert "undefined" in rank_sentences(summary(["a", "b"], [[None, 0.5]]))[0]


def test_the_note_says_when_no_mean_rank_can_exceed_the_critical_difference() -> None:
    note = joined_note(summary(["a", "b", "c"], [[0.9, 0.5, 0.1], [0.8, 0.7, 0.6]]))
    assert "critical difference, 2.34" in note
    assert "With 2 sets it is larger than the largest possible difference, 2" in note
    assert "Friedman's test" in note
    many = joined_note(summary(["a", "b"], [[0.9, 0.5]] * 9))
    assert "larger than" not in many
    assert "Friedman" not in many
