"""Both definitions against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from retfound_dist.evaluate import metrics

CLASSES = ("A", "B", "C")
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
GUESSES = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0])
# confusion, truth in rows:   A: 3 1 0   B: 0 2 1   C: 1 0 2


def one_hot(guesses: np.ndarray, classes: int = 3, sure: float = 0.8) -> np.ndarray:
    rest = (1 - sure) / (classes - 1)
    return np.where(np.eye(classes)[guesses] > 0, sure, rest)


def test_confusion_has_the_truth_in_rows() -> None:
    found = metrics.evaluate(LABELS, one_hot(GUESSES), CLASSES)
    assert found["confusion"] == [[3, 1, 0], [0, 2, 1], [1, 0, 2]]


def test_legacy_is_the_mean_of_one_vs_rest_scores_without_class_0() -> None:
    legacy = metrics.evaluate(LABELS, one_hot(GUESSES), CLASSES)["legacy"]
    # B: tp 2, fn 1, fp 1, tn 6; C: tp 2, fn 1, fp 1, tn 6
    assert legacy["acc"] == pytest.approx(0.8)
    assert legacy["sensitivity"] == pytest.approx(2 / 3)
    assert legacy["specificity"] == pytest.approx(6 / 7)
    assert legacy["precision"] == pytest.approx(2 / 3)
    assert legacy["f1"] == pytest.approx(2 / 3)
    assert legacy["mcc"] == pytest.approx((2 * 6 - 1) / np.sqrt(3 * 3 * 7 * 7))
    assert legacy["undefined"] == {}


def test_a_perfect_class_0_changes_macro_and_not_legacy_sensitivity() -> None:
    better = GUESSES.copy()
    better[3] = 2  # the A taken for B is now taken for C: sensitivities of B and C stay
    first, second = (metrics.evaluate(LABELS, one_hot(g), CLASSES) for g in (GUESSES, better))
    assert first["legacy"]["sensitivity"] == second["legacy"]["sensitivity"]
    right = GUESSES.copy()
    right[3] = 0
    third = metrics.evaluate(LABELS, one_hot(right), CLASSES)
    assert third["legacy"]["sensitivity"] == first["legacy"]["sensitivity"]
    assert third["macro"]["sensitivity"] > first["macro"]["sensitivity"]


def test_macro_is_over_all_classes() -> None:
    macro = metrics.evaluate(LABELS, one_hot(GUESSES), CLASSES)["macro"]
    # A: tp 3, fn 1, fp 1, tn 5
    assert macro["accuracy"] == pytest.approx(0.7)
    assert macro["balanced_accuracy"] == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    assert macro["specificity"] == pytest.approx((5 / 6 + 6 / 7 + 6 / 7) / 3)
    assert macro["precision"] == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    assert macro["f1"] == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    # truth 4 3 3, guesses 4 3 3: chance 16 + 9 + 9 = 34 of 100
    assert macro["kappa"] == pytest.approx((0.7 - 0.34) / (1 - 0.34))
    assert macro["mcc"] == pytest.approx((70 - 34) / (100 - 34))
    assert macro["log_loss"] == pytest.approx(-(7 * np.log(0.8) + 3 * np.log(0.1)) / 10)
    assert macro["ece"] == pytest.approx(0.1)


def test_the_formulas_agree_with_scikit_learn_on_random_predictions() -> None:
    draw = np.random.default_rng(0)
    labels, p = draw.integers(0, 5, 400), draw.dirichlet(np.ones(5), 400)
    macro, guess = metrics.evaluate(labels, p, "ABCDE")["macro"], p.argmax(1)
    assert macro["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, guess))
    assert macro["kappa"] == pytest.approx(sk.cohen_kappa_score(labels, guess))
    assert macro["f1"] == pytest.approx(sk.f1_score(labels, guess, average="macro"))
    assert macro["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, guess))
    assert macro["auroc"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"))
    assert macro["log_loss"] == pytest.approx(sk.log_loss(labels, p))


def test_precision_of_a_class_that_is_never_predicted_is_null_with_the_reason() -> None:
    guesses = np.where(GUESSES == 2, 1, GUESSES)
    found = metrics.evaluate(LABELS, one_hot(guesses), CLASSES)
    for kind in ("legacy", "macro"):
        assert found[kind]["precision"] is None
        assert found[kind]["undefined"]["precision"] == "class C is never predicted"
    assert found["legacy"]["f1"] is None
    assert found["legacy"]["mcc"] is None
    assert found["macro"]["f1"] is not None
    assert found["per_class"]["C"]["precision"] is None
    assert found["per_class"]["C"]["undefined"] == {"precision": "the class is never predicted"}


def test_legacy_does_not_mind_when_only_class_0_is_never_predicted() -> None:
    guesses = np.where(GUESSES == 0, 1, GUESSES)
    found = metrics.evaluate(LABELS, one_hot(guesses), CLASSES)
    assert found["legacy"]["precision"] is not None
    assert found["macro"]["precision"] is None


def test_a_class_without_test_images_leaves_its_scores_undefined() -> None:
    present = LABELS != 1
    found = metrics.evaluate(LABELS[present], one_hot(GUESSES[present]), CLASSES)
    for name in ("sensitivity", "auroc", "aupr", "balanced_accuracy"):
        assert found["macro"][name] is None
        assert found["macro"]["undefined"][name] == "no test image of class B"
    assert found["per_class"]["B"]["n"] == 0


def test_one_class_for_every_image_leaves_mcc_undefined_and_kappa_0() -> None:
    macro = metrics.evaluate(LABELS, one_hot(np.zeros(10, int)), CLASSES)["macro"]
    assert macro["mcc"] is None
    assert macro["kappa"] == 0.0
