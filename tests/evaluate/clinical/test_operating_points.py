"""A threshold is the best one on val that reaches its target, or there is none, and the reason is there."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.operating_points import (
    SENSITIVITY,
    SPECIFICITY,
    Target,
    choose_threshold,
    list_targets,
)

TRUTH = np.array([1] * 10 + [0] * 10, dtype=bool)
SCORES = np.array(
    [
        *(0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3),
        *(0.92, 0.65, 0.45, 0.35, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0),
    ]
)


@pytest.mark.parametrize(
    ("target", "value", "sensitivity", "specificity"),
    [
        (Target(SPECIFICITY, 0.9), 0.7, 0.6, 0.9),
        (Target(SPECIFICITY, 0.8), 0.5, 0.8, 0.8),
        (Target(SPECIFICITY, 0.95), 0.95, 0.1, 1.0),
        (Target(SENSITIVITY, 0.9), 0.4, 0.9, 0.7),
        (Target(SENSITIVITY, 0.95), 0.3, 1.0, 0.5),
    ],
)
def test_the_best_threshold_of_those_that_reach_the_target_is_taken(
    target: Target, value: float, sensitivity: float, specificity: float
) -> None:
    chosen = choose_threshold(TRUTH, SCORES, target, "B")
    assert chosen.value == value
    assert chosen.val == {
        "positives": 10,
        "negatives": 10,
        "sensitivity": pytest.approx(sensitivity),
        "specificity": pytest.approx(specificity),
    }
    called = value <= SCORES
    assert (called & TRUTH).sum() / 10 == pytest.approx(sensitivity)
    assert (~called & ~TRUTH).sum() / 10 == pytest.approx(specificity)


@pytest.mark.parametrize(
    ("truth", "target", "reason"),
    [
        (None, Target(SPECIFICITY, 0.9), "there is no val part"),
        ([], Target(SPECIFICITY, 0.9), "val has no eye of the classes that are tested"),
        ([0] * 12, Target(SPECIFICITY, 0.9), "val has no eye of B"),
        ([1] * 12, Target(SENSITIVITY, 0.9), "val has no eye without B"),
        ([1] + [0] * 9, Target(SPECIFICITY, 0.9), "val has only 9 eyes without B, fewer than 10"),
        ([1] + [0] * 20, Target(SENSITIVITY, 0.9), "val has only 1 eye of B, fewer than 10"),
    ],
)
def test_too_few_val_images_give_no_threshold_but_a_reason(
    truth: list[int] | None, target: Target, reason: str
) -> None:
    truth_N = score_N = None
    if truth is not None:
        truth_N, score_N = np.array(truth, dtype=bool), np.linspace(0, 1, len(truth))
    chosen = choose_threshold(truth_N, score_N, target, "B", "eye")
    assert chosen.value is None
    assert chosen.reason == reason
    assert chosen.to_json()["threshold"] is None


def test_a_specificity_that_no_threshold_reaches_has_a_reason() -> None:
    highest_is_negative = np.where(TRUTH, 0.2, 0.8)
    chosen = choose_threshold(TRUTH, highest_is_negative, Target(SPECIFICITY, 0.9), "B")
    assert chosen.value is None
    assert str(chosen.reason).startswith("on val the image with the highest probability of B is not one")


def test_targets_are_those_of_the_settings() -> None:
    settings = Clinical(specificities=(0.95,), sensitivities=(0.8, 0.9))
    assert [t.name for t in list_targets(settings)] == [
        *("specificity 0.95", "sensitivity 0.8", "sensitivity 0.9"),
    ]
