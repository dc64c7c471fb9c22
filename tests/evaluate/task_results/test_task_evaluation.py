"""Scores of seeds and of single labels, numbers and grades."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.task_results.task_evaluation import seed_tables, target_tables
from retfound_dist.evaluate.tasks.task_outputs import predicted_grades
from tests.evaluate.tasks_made import FACTS, made_task


def test_each_seed_is_scored_and_their_spread_is_that_of_a_sample() -> None:
    truth = np.array([[50.0], [60.0], [70.0]])
    results = [FinetuneResult(s, [], 4, truth + error) for s, error in ((0, 1.0), (1, 2.0), (2, 6.0))]
    tables = seed_tables(FACTS["regression"], truth, results)
    assert [row["scores"]["mae"] for row in tables["per_seed"]] == [1.0, 2.0, 6.0]
    assert [row["epoch"] for row in tables["per_seed"]] == [4, 4, 4]
    assert tables["over_seeds"]["mae"] == {"mean": 3.0, "std": pytest.approx(np.std([1, 2, 6], ddof=1))}


def test_a_mean_over_seeds_is_not_that_of_some_of_them() -> None:
    truth = np.array([[50.0], [50.0]])
    results = [FinetuneResult(0, [], 1, truth), FinetuneResult(1, [], 1, truth + 1)]
    tables = seed_tables(FACTS["regression"], truth, results)
    assert tables["over_seeds"]["r2"] == {"mean": None, "std": None}


def test_a_label_counts_the_images_whose_answer_is_known() -> None:
    made = made_task("multilabel")
    row = target_tables(made.facts, made.targets_NT, made.predictions_NP, {"fluid": {"threshold": 0.4}})[
        "per_target"
    ]["fluid"]
    known = np.isfinite(made.targets_NT[:, 1])
    assert row["images"] == known.sum() < 60
    assert row["with_label"] == np.nansum(made.targets_NT[:, 1])
    assert row["auroc"] == pytest.approx(
        roc_auc_score(made.targets_NT[known, 1], made.predictions_NP[known, 1])
    )
    has_label = made.targets_NT[:, 1] == 1
    assert row["threshold"] == 0.4
    assert row["sensitivity"] == (made.predictions_NP[has_label, 1] >= 0.4).mean()


def test_a_number_has_its_bias_and_the_error_of_the_best_constant() -> None:
    truth = np.array([[1.0], [2.0], [9.0]])
    row = target_tables(FACTS["regression"], truth, truth + 0.5, {})["per_target"]["age"]
    assert row["bias"] == 0.5
    assert row["mae_of_median"] == pytest.approx(8 / 3)


def test_grades_have_the_confusion_matrix_of_scikit_learn() -> None:
    made = made_task("ordinal")
    tables = target_tables(made.facts, made.targets_NT, made.predictions_NP, {})
    truth, predicted = made.targets_NT[:, 0].astype(int), predicted_grades(made.predictions_NP)
    assert tables["confusion"] == confusion_matrix(truth, predicted).tolist()
    assert tables["per_target"]["1"]["correct_share"] == pytest.approx((predicted[truth == 1] == 1).mean())
