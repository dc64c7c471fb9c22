"""Both definitions against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from retfound_dist.evaluate.scores import metrics

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
        assert found["macro"]["undefined"][name] == "class B does not occur"
    assert found["per_class"]["B"]["n"] == 0


def test_one_class_for_every_image_leaves_mcc_undefined_and_kappa_0() -> None:
    macro = metrics.evaluate(LABELS, one_hot(np.zeros(10, int)), CLASSES)["macro"]
    assert macro["mcc"] is None
    assert macro["kappa"] == 0.0


UNEVEN = np.array([[5.0, 2, 1], [0, 4, 3], [1, 1, 8]])
"""Truth in rows: 8 A, 7 B, 10 C of 25; guesses: 6 A, 7 B, 12 C."""


def test_each_classs_scores_are_those_of_its_two_by_two_table() -> None:
    """A: tp 5, fn 3, fp 1, tn 16; B: tp 4, fn 3, fp 3, tn 15; C: tp 8, fn 2, fp 4, tn 11."""
    found = metrics.one_vs_rest(UNEVEN)
    assert found["acc"] == pytest.approx([21 / 25, 19 / 25, 19 / 25])
    assert found["sensitivity"] == pytest.approx([5 / 8, 4 / 7, 8 / 10])
    assert found["specificity"] == pytest.approx([16 / 17, 15 / 18, 11 / 15])
    assert found["precision"] == pytest.approx([5 / 6, 4 / 7, 8 / 12])
    assert found["f1"] == pytest.approx([10 / 14, 8 / 14, 16 / 22])
    assert found["f1_legacy"] == pytest.approx([10 / 14, 8 / 14, 16 / 22])
    assert found["mcc"] == pytest.approx(
        [
            (5 * 16 - 1 * 3) / np.sqrt(6 * 8 * 17 * 19),
            (4 * 15 - 3 * 3) / np.sqrt(7 * 7 * 18 * 18),
            (8 * 11 - 4 * 2) / np.sqrt(12 * 10 * 15 * 13),
        ]
    )


def test_legacy_and_macro_of_an_uneven_table_by_hand() -> None:
    legacy, macro = metrics.legacy_scores(UNEVEN), metrics.macro_scores(UNEVEN)
    assert set(legacy) == set(metrics.LEGACY) - {"auroc", "aupr"}
    assert legacy["acc"] == pytest.approx(19 / 25)
    assert legacy["sensitivity"] == pytest.approx((4 / 7 + 8 / 10) / 2)
    assert legacy["f1"] == pytest.approx((8 / 14 + 16 / 22) / 2)
    assert macro["accuracy"] == pytest.approx(17 / 25)
    assert macro["balanced_accuracy"] == macro["sensitivity"] == pytest.approx((5 / 8 + 4 / 7 + 8 / 10) / 3)
    assert macro["f1"] == pytest.approx((10 / 14 + 8 / 14 + 16 / 22) / 3)
    chance = 8 * 6 + 7 * 7 + 10 * 12
    assert macro["kappa"] == pytest.approx((17 * 25 - chance) / (625 - chance))
    truth, guess = 625 - (64 + 49 + 100), 625 - (36 + 49 + 144)
    assert macro["mcc"] == pytest.approx((17 * 25 - chance) / np.sqrt(truth * guess))


def test_many_tables_at_once_are_scored_each_by_itself() -> None:
    """A stack of 2 x 4 tables of 3 classes: every axis has a length of its own."""
    tables = np.random.default_rng(0).integers(1, 20, (2, 4, 3, 3)).astype(float)
    for scores in (metrics.one_vs_rest, metrics.legacy_scores, metrics.macro_scores):
        together = scores(tables)
        for place in np.ndindex(2, 4):
            for name, value in scores(tables[place]).items():
                np.testing.assert_allclose(together[name][place], value, err_msg=name)


def test_f1_of_a_class_that_is_never_predicted_is_0_and_has_no_legacy_value() -> None:
    found = metrics.one_vs_rest(np.array([[3.0, 0], [2, 0]]))
    assert found["f1"][1] == 0
    assert np.isnan(found["f1_legacy"][1])
    assert np.isnan(found["precision"][1])
    assert np.isnan(found["mcc"]).all()


def test_ranking_of_two_classes_by_hand() -> None:
    """B's images have p(B) 0.9 and 0.4, A's 0.6 and 0.1: 3 of 4 pairs are in order."""
    labels, p_b = np.array([0, 1, 1, 0]), np.array([0.6, 0.9, 0.4, 0.1])
    auroc, aupr = metrics.ranking(labels, np.stack([1 - p_b, p_b], axis=1))
    assert auroc == pytest.approx([3 / 4, 3 / 4])
    assert aupr == pytest.approx([(1 + 2 / 3) / 2, (1 + 2 / 3) / 2])


def test_a_class_that_holds_every_image_has_no_ranking_and_the_others_keep_theirs() -> None:
    auroc, aupr = metrics.ranking(np.zeros(4, int), one_hot(np.array([0, 1, 2, 0])))
    assert np.isnan(auroc).all()
    assert np.isnan(aupr).all()
    auroc, aupr = metrics.ranking(np.array([0, 0, 1, 0]), one_hot(np.array([0, 0, 1, 1])))
    assert np.isnan(auroc).tolist() == np.isnan(aupr).tolist() == [False, False, True]
    # p(B) of A's images 0.1, 0.1, 0.8 and of B's 0.8: two pairs in order, one tie
    assert auroc[1] == pytest.approx(2.5 / 3)
    assert aupr[1] == pytest.approx(1 / 2)


def test_a_true_class_of_probability_0_costs_what_1e_12_costs() -> None:
    loss = metrics.mean_log_loss(np.array([0, 1]), np.array([[0.0, 1.0], [0.5, 0.5]]))
    assert loss == pytest.approx((-np.log(1e-12) - np.log(0.5)) / 2)


def test_probabilities_that_do_not_sum_to_1_are_scaled_for_the_log_loss() -> None:
    assert metrics.mean_log_loss(np.array([0, 1]), np.array([[0.2, 0.2], [0.1, 0.3]])) == pytest.approx(
        -(np.log(1 / 2) + np.log(3 / 4)) / 2
    )


def test_confidences_fall_into_fifteen_equal_bins_that_hold_their_upper_edge() -> None:
    edges = [0.0, 0.5 / 15, 1 / 15, 1.01 / 15, 2 / 15, 7.5 / 15, 14 / 15, 14.01 / 15, 1.0]
    assert metrics.confidence_bins(np.array(edges)).tolist() == [0, 0, 0, 1, 1, 7, 13, 14, 14]


def test_the_calibration_error_weighs_each_bins_gap_by_its_images() -> None:
    """Confidence 0.95 twice, one right: gap -0.45 each; 0.55, right: +0.45; the bins do not make up for each other."""
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55]])
    labels = np.array([0, 1, 1])
    gaps = metrics.calibration_gaps(labels, p)
    assert gaps.shape == (3, 15)
    assert np.count_nonzero(gaps) == 3
    assert gaps[[0, 1, 2], [14, 14, 8]] == pytest.approx([0.05, -0.95, 0.45])
    assert metrics.calibration_error(labels, p) == pytest.approx((abs(0.05 - 0.95) + 0.45) / 3)


def test_the_table_has_every_class_even_one_that_is_neither_true_nor_predicted() -> None:
    found = metrics.evaluate(np.array([0, 0, 1]), one_hot(np.array([0, 1, 1]), 4), "ABCD")
    assert found["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert list(found["per_class"]) == ["A", "B", "C", "D"]
    assert found["legacy"]["undefined"] == {
        "sensitivity": "classes C, D do not occur",
        "precision": "classes C, D are never predicted",
        "f1": "classes C, D are never predicted correctly: no precision, or both precision and sensitivity are 0",
        "mcc": "classes C, D do not occur; classes C, D are never predicted",
        "auroc": "classes C, D do not occur",
        "aupr": "classes C, D do not occur",
    }
    assert found["per_class"]["D"]["undefined"]["precision"] == "the class does not occur"
    assert found["macro"]["undefined"] == {
        "balanced_accuracy": "classes C, D do not occur",
        "sensitivity": "classes C, D do not occur",
        "precision": "classes C, D are never predicted",
        "f1": "classes C, D are never predicted correctly: no precision, or both precision and sensitivity are 0",
        "auroc": "classes C, D do not occur",
        "aupr": "classes C, D do not occur",
    }


def test_class_0_has_no_say_in_why_a_legacy_score_is_undefined() -> None:
    """A and C are never predicted, A has no image: legacy speaks of C alone."""
    found = metrics.evaluate(np.array([1, 1, 2]), one_hot(np.array([1, 1, 1])), CLASSES)
    assert found["legacy"]["undefined"]["precision"] == "class C is never predicted"
    assert found["macro"]["undefined"]["precision"] == "classes A, C are never predicted"
    assert found["legacy"]["undefined"]["mcc"] == "class C is never predicted"
    assert found["macro"]["undefined"]["sensitivity"] == "class A does not occur"
    assert found["legacy"]["sensitivity"] == 0.5


def test_one_class_for_everything_is_why_specificity_mcc_and_kappa_are_undefined() -> None:
    found = metrics.evaluate(np.zeros(3, int), one_hot(np.zeros(3, int), 2), "AB")
    reason = "only one class occurs, or only one is predicted"
    for name in ("specificity", "mcc", "kappa"):
        assert found["macro"]["undefined"][name] == reason, name
    both = metrics.evaluate(np.zeros(3, int), one_hot(np.array([0, 0, 1]), 2), "AB")
    assert both["macro"]["undefined"]["auroc"] == "class B does not occur"
    everything = dict.fromkeys(("specificity", "auroc", "aupr"), "no other class occurs")
    assert found["per_class"]["A"]["undefined"] == both["per_class"]["A"]["undefined"] == everything
    assert both["per_class"]["B"]["undefined"] == dict.fromkeys(
        ("sensitivity", "auroc", "aupr"), "the class does not occur"
    )


def test_each_classs_row_has_its_counts_and_its_own_scores() -> None:
    labels = np.repeat([0, 0, 0, 1, 1, 2, 2, 2], [5, 2, 1, 4, 3, 1, 1, 8])
    guesses = np.repeat([0, 1, 2, 1, 2, 0, 1, 2], [5, 2, 1, 4, 3, 1, 1, 8])
    found = metrics.evaluate(labels, one_hot(guesses), CLASSES)
    assert found["confusion"] == UNEVEN.astype(int).tolist()
    row = found["per_class"]["A"]
    assert (row["n"], row["predicted"], row["undefined"]) == (8, 6, {})
    assert row["sensitivity"] == pytest.approx(5 / 8)
    assert row["specificity"] == pytest.approx(16 / 17)
    assert row["precision"] == pytest.approx(5 / 6)
    assert row["f1"] == pytest.approx(10 / 14)
    auroc, aupr = metrics.ranking(labels, one_hot(guesses))
    for place, name in enumerate(CLASSES):
        assert found["per_class"][name]["auroc"] == pytest.approx(auroc[place])
        assert found["per_class"][name]["aupr"] == pytest.approx(aupr[place])
    assert found["macro"]["auroc"] == found["legacy"]["auroc"] == pytest.approx(auroc.mean())
    assert found["macro"]["aupr"] == found["legacy"]["aupr"] == pytest.approx(aupr.mean())


def test_a_confidence_that_rounding_has_made_larger_than_1_is_in_the_last_bin() -> None:
    assert metrics.confidence_bins(np.array([1 + 1e-9])).tolist() == [14]


def test_a_ratio_to_nothing_is_undefined_and_no_warning() -> None:
    with np.errstate(divide="raise", invalid="raise"):
        found = metrics._ratio(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 2.0]))
    assert np.isnan(found).tolist() == [True, True, False]
    assert found[2] == 0.5


def test_a_table_of_other_classes_than_are_named_is_refused() -> None:
    with pytest.raises(ValueError):
        metrics.reasons(np.eye(2), CLASSES)
