"""What a comparison proves: real differences are told from chance, for every score."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate.report.paired_differences import comparison
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import metrics


def made_up(p: np.ndarray, labels: np.ndarray, kind: str = "file") -> Evaluation:
    """An evaluation with these probabilities and one image a patient."""
    names = tuple(str(i) for i in range(len(labels)))
    span = {"macro": dict.fromkeys(metrics.MACRO)}
    known = ("checkpoint", "per_seed", "over_seeds", "seconds", "bootstrap", "seeds", "split", "versions")
    tree = {
        **dict.fromkeys(known),
        "checkpoint": {"kind": kind},
        "bootstrap": {},
        **metrics.evaluate(labels, p, "ABC"),
        "ci95": span,
        "classes": list("ABC"),
    }
    return Evaluation(tree, names, names, labels, p, [])


def test_a_row_that_is_much_better_is_told_apart_and_an_equal_one_is_not() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60)
    right, guessed = 0.1 + 0.7 * np.eye(3)[labels], draw.dirichlet(np.ones(3), 60)
    rows = {"good": made_up(right, labels), "same": made_up(right, labels), "bad": made_up(guessed, labels)}
    tree = comparison(rows, 200)
    assert {(d["metric"], d["other"]): d["real"] for d in tree["differences"]} == {
        ("aupr", "same"): False,
        ("aupr", "bad"): True,
        ("balanced_accuracy", "same"): False,
        ("balanced_accuracy", "bad"): True,
    }
    assert tree["against_none"] == []
    for kind, metric in (("macro", "auroc"), ("macro", "log_loss"), ("legacy", "sensitivity")):
        assert tree["ties"][kind][metric] == ["same"], metric
    assert "“bad” by 0.6" in tree["sentences"][0]
    assert "clearly ahead of “bad”" in tree["sentences"][0]
    assert "No clear difference" in tree["sentences"][0]


def test_it_says_whether_a_row_is_better_or_worse_than_no_pretraining() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60)
    right, guessed = 0.1 + 0.7 * np.eye(3)[labels], draw.dirichlet(np.ones(3), 60)
    rows = {
        "none": made_up(guessed, labels, "none"),
        "good": made_up(right, labels),
        "alike": made_up(guessed, labels),
    }
    said = comparison(rows, 200)["sentences"]
    assert said[0].startswith("“good” is better than no pretraining: AUPR +0.")
    assert said[1].startswith("“alike” is not shown to be better or worse than no pretraining")
    rows = {"none": made_up(right, labels, "none"), "bad": made_up(guessed, labels)}
    said = comparison(rows, 200)["sentences"]
    assert said[0].startswith("“bad” is worse than no pretraining: AUPR −0.")


def test_rows_of_different_test_images_are_refused() -> None:
    labels = np.arange(12) % 3
    row = made_up(0.1 + 0.7 * np.eye(3)[labels], labels)
    other = dataclasses.replace(row, keys=tuple(f"{key}x" for key in row.keys))
    with pytest.raises(DataError, match="other test images"):
        comparison({"a": row, "b": other}, 10)


def test_a_score_that_no_class_allows_is_no_difference_and_no_best() -> None:
    """With one class only AUPR is undefined: no row is the best, and nothing is claimed."""
    labels = np.zeros(12, dtype=np.int64)
    rows = {name: made_up(np.full((12, 3), 1 / 3), labels, name) for name in ("none", "other")}
    tree = comparison(rows, 20)
    assert tree["best"]["aupr"] is None
    assert [line for line in tree["differences"] if line["metric"] == "aupr"] == []
    (line,) = [line for line in tree["against_none"] if line["metric"] == "aupr"]
    assert (line["difference"], line["ci95"], line["real"]) == (None, None, False)
    assert "AUPR is undefined for every row." in tree["sentences"]


def test_every_pair_has_a_p_and_holm_counts_all_pairs_of_a_metric() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60)
    right, guessed = 0.1 + 0.7 * np.eye(3)[labels], draw.dirichlet(np.ones(3), 60)
    rows = {
        "none": made_up(guessed, labels, "none"),
        "same": made_up(right, labels),
        "good": made_up(right, labels),
    }
    tree = comparison(rows, 999)
    aupr = {(p["one"], p["other"]): p for p in tree["pairs"] if p["metric"] == "aupr"}
    assert list(aupr) == [("none", "same"), ("none", "good"), ("same", "good")]
    assert [p["p"] for p in aupr.values()] == pytest.approx([2 / 1000, 2 / 1000, 1.0])
    assert [p["p_holm"] for p in aupr.values()] == pytest.approx([6 / 1000, 6 / 1000, 1.0])
    assert {p["comparisons"] for p in aupr.values()} == {3}
    (to_none,) = [d for d in tree["against_none"] if (d["row"], d["metric"]) == ("good", "aupr")]
    pair = aupr["none", "good"]
    assert to_none["difference"] == -pair["difference"] > 0
    assert to_none["ci95"] == [-pair["ci95"][1], -pair["ci95"][0]]
    assert to_none["p_holm"] == pair["p_holm"]
    assert "still larger than chance after correction for 3 comparisons" in tree["sentences"][0]


def test_few_resamples_cannot_show_a_difference_after_correction_and_a_sentence_says_so() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60)
    right, guessed = 0.1 + 0.7 * np.eye(3)[labels], draw.dirichlet(np.ones(3), 60)
    rows = {
        "none": made_up(guessed, labels, "none"),
        "a": made_up(right, labels),
        "b": made_up(right, labels),
    }
    tree = comparison(rows, 50)
    assert "but not after correction for 3 comparisons" in tree["sentences"][0]
    assert tree["sentences"][-1] == (
        "No difference can remain after correction for 3 comparisons: with 50 resamples the smallest corrected "
        "p is 0.12. Set a larger bootstrap."
    )
