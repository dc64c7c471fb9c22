"""Sentences on the differences between the rows of a comparison."""

from __future__ import annotations

from typing import Any

from retfound_dist.evaluate.scores import comparison_wording


def difference(value: float, real: bool, metric: str = "aupr", other: str = "") -> dict[str, Any]:
    span = [value - 0.01, value + 0.01] if real else [value - 1, value + 1]
    return {"metric": metric, "difference": value, "ci95": span, "real": real, "other": other}


def test_the_best_row_is_ahead_of_each_other_or_not_told_apart() -> None:
    lines = [
        difference(0.2, True, other="bad"),
        difference(0.001, False, other="same"),
        difference(0.02, False, other="near"),
        {"difference": None, "ci95": None, "real": False, "other": "lost"},
    ]
    text = comparison_wording.describe_best("good", "auroc", "0.900", lines)
    assert text.startswith(
        "“good” has the best AUROC, 0.900. It is clearly ahead of “bad” by 0.200 [0.190, 0.210]. "
    )
    assert (
        "No clear difference on these test images from “same” (0.001 [−0.999, 1.001]) and "
        "“near” (0.020 [−0.980, 1.020]). "
    ) in text
    assert text.endswith("“lost” cannot be compared: its AUROC is undefined.")


def test_a_row_is_better_or_worse_than_no_pretraining_only_where_that_is_real() -> None:
    better, worse = difference(0.2, True), difference(-0.3, True, "kappa")
    assert comparison_wording.describe_gain("a", [better, worse]) == (
        "“a” is better than no pretraining: AUPR +0.200 [0.190, 0.210]; "
        "it is worse than no pretraining: kappa −0.300 [−0.310, −0.290]."
    )
    assert comparison_wording.describe_gain("a", [better, difference(0.0, False, "kappa")]).endswith(
        "; no clear difference in kappa."
    )
    assert comparison_wording.describe_gain("a", [difference(0.1, False)]) == (
        "“a” is not shown to be better or worse than no pretraining "
        "(difference: AUPR +0.100 [−0.900, 1.100])."
    )


def test_a_clear_difference_says_whether_it_remains_after_correction() -> None:
    lines = [
        {**difference(0.1, True), "other": name, "p_holm": p_holm, "comparisons": 3}
        for name, p_holm in (("a", 0.01), ("b", 0.2))
    ]
    text = comparison_wording.describe_best("good", "auroc", "0.900", lines)
    assert "“a” by 0.100 [0.090, 0.110] (still larger than chance after correction for 3 comparisons)" in text
    assert text.endswith("and “b” by 0.100 [0.090, 0.110] (but not after correction for 3 comparisons).")
    assert "(but not after correction for 3 comparisons)" in comparison_wording.describe_gain(
        "good", lines[1:]
    )
    # One comparison needs no correction, and old files have none.
    single = [{**lines[0], "comparisons": 1}, {**difference(0.1, True), "other": "c"}]
    assert "correction" not in comparison_wording.describe_best("good", "auroc", "0.900", single)


def test_too_few_resamples_are_named_and_enough_are_not() -> None:
    assert comparison_wording.describe_too_few_resamples(1000, 10) == []
    assert comparison_wording.describe_too_few_resamples(10, 1) == []
    (sentence,) = comparison_wording.describe_too_few_resamples(1000, 45)
    assert "with 1,000 resamples the smallest corrected p is 0.0899" in sentence


def test_rows_that_are_all_equal_have_no_best() -> None:
    same = {"metric": "aupr", "difference": 0.0, "ci95": [0.0, 0.0], "real": False, "other": "b"}
    assert comparison_wording.describe_best("a", "aupr", "0.2", [same]) == "All rows have the same AUPR, 0.2."
    one_apart = comparison_wording.describe_best("a", "aupr", "0.2", [same, difference(0.1, True, other="c")])
    assert one_apart.startswith("“a” has the best AUPR")


def test_many_rows_without_a_clear_difference_share_one_sentence() -> None:
    unclear = {name: [difference(0.1, False)] for name in ("a", "b", "c")}
    gains = {"clear": [difference(0.2, True)], **unclear}
    clear, others = comparison_wording.describe_gains(gains)
    assert clear.startswith("“clear” is better than no pretraining")
    assert others.startswith(
        "These rows are not shown to be better or worse than no pretraining: “a” (AUPR +0.100"
    )
    assert others.count("AUPR") == 3
    del gains["c"]
    assert len(comparison_wording.describe_gains(gains)) == 3
