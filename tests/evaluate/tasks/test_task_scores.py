"""Scores of tasks: those of scikit-learn and of direct sums, with and without weights."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.tasks import task_scores
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.evaluate.tasks.task_outputs import predicted_grades
from retfound_dist.evaluate.tasks.task_scores import concordance, score_once, weighted_scores

N = 83
DRAW = np.random.default_rng(5)
WEIGHTS = np.vstack([np.ones(N, dtype=np.int64), DRAW.integers(0, 4, (4, N))])
LABELS = TaskFacts("multilabel", ("cyst", "fluid", "hole"))
NUMBER = TaskFacts("regression", ("age",))
GRADES = TaskFacts("ordinal", ("stage",), grades=("0", "1", "2", "3"))
LABEL_TRUTH: Floats = (DRAW.random((N, 3)) < [0.5, 0.2, 0.7]).astype(float)
LABEL_TRUTH[DRAW.random((N, 3)) < 0.1] = np.nan
# One decimal, so that there are ties.
P_LABELS: Floats = np.clip(0.3 * np.nan_to_num(LABEL_TRUTH) + DRAW.random((N, 3)) * 0.6, 0.01, 0.99).round(1)
AGES: Floats = DRAW.normal(60, 10, (N, 1)).round(0)
P_AGES: Floats = (AGES + DRAW.normal(0, 8, (N, 1))).round(0)
STAGES: Floats = DRAW.integers(0, 4, (N, 1)).astype(float)
P_STAGES: Floats = DRAW.dirichlet(np.ones(4), N) + 0.7 * np.eye(4)[STAGES[:, 0].astype(int)]
P_STAGES /= P_STAGES.sum(1, keepdims=True)


def direct_concordance(truth_N: Floats, predicted_N: Floats, weights_N: np.ndarray) -> float:
    above = below = 0.0
    for i, j in combinations(range(len(truth_N)), 2):
        if truth_N[i] != truth_N[j]:
            weight = weights_N[i] * weights_N[j]
            below += weight
            agree = (predicted_N[i] - predicted_N[j]) * (truth_N[i] - truth_N[j])
            above += weight * (1.0 if agree > 0 else 0.5 if agree == 0 else 0.0)
    return above / below


@pytest.mark.parametrize("row", range(len(WEIGHTS)))
def test_labels_have_the_scores_of_scikit_learn_over_known_answers(row: int) -> None:
    scored = weighted_scores(LABELS, LABEL_TRUTH, P_LABELS, WEIGHTS)
    expected: dict[str, list[float]] = {"auroc": [], "aupr": [], "log_loss": []}
    for t in range(3):
        known = np.isfinite(LABEL_TRUTH[:, t])
        truth, p, weight = LABEL_TRUTH[known, t], P_LABELS[known, t], WEIGHTS[row, known]
        expected["auroc"].append(roc_auc_score(truth, p, sample_weight=weight))
        expected["aupr"].append(average_precision_score(truth, p, sample_weight=weight))
        expected["log_loss"].append(log_loss(truth, p, sample_weight=weight))
    for name, values in expected.items():
        assert scored[name][row] == pytest.approx(np.mean(values), abs=1e-12), name


@pytest.mark.parametrize("row", range(len(WEIGHTS)))
def test_a_number_has_the_scores_of_scikit_learn_and_of_all_pairs(row: int) -> None:
    scored = weighted_scores(NUMBER, AGES, P_AGES, WEIGHTS)
    truth, predicted, weight = AGES[:, 0], P_AGES[:, 0], WEIGHTS[row]
    assert scored["mae"][row] == pytest.approx(mean_absolute_error(truth, predicted, sample_weight=weight))
    assert scored["rmse"][row] == pytest.approx(
        root_mean_squared_error(truth, predicted, sample_weight=weight)
    )
    assert scored["r2"][row] == pytest.approx(r2_score(truth, predicted, sample_weight=weight))
    assert scored["concordance"][row] == pytest.approx(direct_concordance(truth, predicted, weight))


@pytest.mark.parametrize("row", range(len(WEIGHTS)))
def test_a_grade_has_the_scores_of_scikit_learn(row: int) -> None:
    scored = weighted_scores(GRADES, STAGES, P_STAGES, WEIGHTS)
    truth, predicted, weight = STAGES[:, 0].astype(int), predicted_grades(P_STAGES), WEIGHTS[row]
    kappa = cohen_kappa_score(truth, predicted, weights="quadratic", sample_weight=weight)
    assert scored["quadratic_kappa"][row] == pytest.approx(kappa)
    assert scored["accuracy"][row] == pytest.approx(accuracy_score(truth, predicted, sample_weight=weight))
    assert scored["mae_grades"][row] == pytest.approx(
        mean_absolute_error(truth, predicted, sample_weight=weight)
    )


def test_pairs_are_counted_alike_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = concordance(AGES[:, 0], P_AGES[:, 0], WEIGHTS)
    monkeypatch.setattr(task_scores, "_BLOCK", 7 * N)
    assert concordance(AGES[:, 0], P_AGES[:, 0], WEIGHTS) == pytest.approx(whole)


def test_large_numbers_keep_their_r2() -> None:
    """The variance as mean of squares minus squared mean would lose all digits here."""
    shift = 1e9
    near = weighted_scores(NUMBER, AGES, P_AGES, WEIGHTS)["r2"]
    far = weighted_scores(NUMBER, AGES + shift, P_AGES + shift, WEIGHTS)["r2"]
    assert far == pytest.approx(near, rel=1e-6)


def test_scores_that_are_not_defined_are_none() -> None:
    same = np.full((5, 1), 3.0)
    assert score_once(NUMBER, same, same + 1)["r2"] is None
    assert score_once(NUMBER, same, same + 1)["concordance"] is None
    assert score_once(NUMBER, same, same + 1)["mae"] == 1
    certain = np.tile([0.0, 1.0, 0.0, 0.0], (5, 1))
    assert score_once(GRADES, np.ones((5, 1)), certain)["quadratic_kappa"] is None
    truth = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    scores = score_once(LABELS, truth, np.full((2, 3), 0.5))
    assert scores["auroc"] is None
    assert scores["log_loss"] == pytest.approx(np.log(2))
