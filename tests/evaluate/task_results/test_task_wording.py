"""Sentences on tasks."""

from __future__ import annotations

from typing import Any

from retfound_dist.evaluate.task_results import task_wording
from tests.evaluate.tasks_made import FACTS, made_task

LINE = {"row": "a", "none": "n", "metric": "mae", "difference": -2.0, "ci95": [-3.0, -1.0], "real": True}


def test_a_smaller_error_is_better_and_a_smaller_auroc_is_worse() -> None:
    better = task_wording.gain_sentences([LINE])
    assert better == ["“a” is better than no pretraining: mean absolute error −2.000 [−3.000, −1.000]."]
    (worse,) = task_wording.gain_sentences([{**LINE, "metric": "auroc"}])
    assert worse.startswith("“a” is worse than no pretraining: AUROC −2.000")


def test_scores_that_disagree_are_not_called_better() -> None:
    (text,) = task_wording.gain_sentences([LINE, {**LINE, "metric": "concordance"}])
    assert text.startswith("“a” is better than no pretraining in one score and worse in another")


def test_an_error_that_may_be_that_of_a_constant_is_said_to_be() -> None:
    tree = made_task("regression", error=0.1).metrics
    assert "and a concordance of 0.50" in " ".join(task_wording.summary_sentences(tree, FACTS["regression"]))
    tree["ci95"]["mae"] = [1.0, 99.0]
    assert "may be no better" in " ".join(task_wording.summary_sentences(tree, FACTS["regression"]))


def test_rare_labels_missing_val_and_undefined_scores_are_warned_of() -> None:
    tree = made_task("multilabel", images=20).metrics
    tree["split"]["val"] = 0
    tree["scores"]["auroc"] = None
    text = "; ".join(task_wording.task_warnings(tree, FACTS["multilabel"]))
    assert "fewer than 10 test images of" in text
    assert "the test part has only 10 patients" in text
    assert "the last epoch was kept" in text
    assert "not defined on these test images, and shown as -: AUROC" in text


def test_the_headline_names_the_decisive_scores() -> None:
    line = task_wording.task_headline(made_task("ordinal").metrics, FACTS["ordinal"])
    assert line.startswith("test (60 images, 1 s): quadratic kappa 0.")
    assert "mean error in grades" in line


def test_the_best_row_s_lead_is_positive_and_what_cannot_be_compared_is_told() -> None:
    metrics = {"scores": {"mae": 4.0, "auroc": 0.9}, "ci95": {"mae": [3.0, 5.0], "auroc": [0.8, 0.95]}}

    def line(metric: str, other: str, difference: float | None, real: bool = False) -> dict[str, Any]:
        span = None if difference is None else [difference - 1, difference + 1]
        return {"metric": metric, "other": other, "difference": difference, "ci95": span, "real": real}

    lines = [line("mae", "b", -3.2, real=True), line("mae", "c", -0.5), line("mae", "d", None)]
    text = task_wording.best_sentence("mae", "a", metrics, lines)
    assert "It is clearly ahead of “b” by +3.200 [2.200, 4.200]." in text
    assert "No clear difference on these test images from “c” (-0.500" in text.replace("\u2212", "-")
    assert text.endswith("“d” cannot be compared: its mean absolute error is undefined.")
    text = task_wording.best_sentence("auroc", "a", metrics, [line("auroc", "b", 0.2, real=True)])
    assert "It is clearly ahead of “b” by +0.200 [-0.800, 1.200]." in text.replace("\u2212", "-")
    same = task_wording.best_sentence(
        "auroc", "a", metrics, [line("auroc", "b", 0.0), line("auroc", "c", 0.0)]
    )
    assert same == "All rows have the same AUROC, 0.900 [0.800, 0.950]."
