"""The threshold of a label: the best sum of sensitivity and specificity on val, and 0.5 where val is too small."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.tasks.label_thresholds import (
    choose_thresholds,
    joined_labels,
    threshold_notes,
    threshold_rates,
    threshold_values,
)

TRUTH = np.array([0.0] * 12 + [1.0] * 12 + [np.nan])
"""12 images without the label, 12 with it, and one whose answer is not known."""


def drawn(seed: int) -> np.ndarray:
    """Probabilities that are higher where the label is, with ties."""
    draw = np.random.default_rng(seed).random(len(TRUTH))
    noisy: np.ndarray = (0.3 * np.nan_to_num(TRUTH, nan=1.0) + 0.7 * draw).round(1)
    return noisy


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_larger_sum_of_sensitivity_and_specificity(seed: int) -> None:
    probability = drawn(seed)
    chosen = choose_thresholds(["a"], TRUTH[:, None], probability[:, None])["a"]
    sums = {
        p: sum(map(float, threshold_rates(TRUTH, probability, p).values())) for p in np.unique(probability)
    }  # type: ignore[arg-type]
    assert sums[chosen["threshold"]] == pytest.approx(max(sums.values()))
    assert chosen["threshold"] == max(p for p, total in sums.items() if total > max(sums.values()) - 1e-9)
    assert chosen["reason"] is None
    assert chosen["val"] == {
        "positives": 12, "negatives": 12, **threshold_rates(TRUTH, probability, chosen["threshold"])
    }  # fmt: skip


def test_too_few_images_give_one_half_and_a_reason() -> None:
    rare = np.where(np.arange(25) < 3, 1.0, 0.0)
    chosen = choose_thresholds(["a", "b"], np.column_stack([rare, 1 - rare]), np.full((25, 2), 0.1))
    assert [chosen[name]["threshold"] for name in "ab"] == [0.5, 0.5]
    assert chosen["a"]["reason"] == "val has 3 images with a, fewer than 10"
    assert chosen["b"]["reason"] == "val has 3 images without b, fewer than 10"
    assert choose_thresholds(["a"], None, None)["a"]["reason"] == "there is no val part"


def test_rates_count_known_answers() -> None:
    truth, probability = np.array([1, 1, 0, np.nan]), np.array([0.6, 0.5, 0.5, 0.9])
    assert threshold_rates(truth, probability, 0.6) == {"sensitivity": 0.5, "specificity": 1.0}
    assert threshold_rates(truth[:2], probability[:2], 0.6)["specificity"] is None


def test_labels_at_their_threshold_or_above_it_are_predicted() -> None:
    stored = {"a": {"threshold": 0.3}, "b": {"threshold": 0.8}}
    assert threshold_values(["b", "a", "c"], stored).tolist() == [0.8, 0.3, 0.5]
    rows = np.array([[0.3, 0.9], [0.29, 0.79], [0.1, 0.8]])
    assert joined_labels(["a", "b"], threshold_values(["a", "b"], stored), rows) == ["a;b", "none", "b"]


def test_a_threshold_that_was_not_chosen_is_told() -> None:
    stored = {
        "a": {"threshold": 0.3, "reason": None},
        "b": {"threshold": 0.5, "reason": "there is no val part"},
    }
    assert threshold_notes(["a", "b", "c"], stored) == [
        "the threshold of b is 0.5: there is no val part",
        "the threshold of c is 0.5: the classifier has none",
    ]
