"""Sentences say what scaling changed, where a classifier is useful, and which gaps are larger than chance."""

from __future__ import annotations

from typing import Any

import pytest

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.clinical_wording import (
    clinical_sentences,
    describe_usefulness,
    explanations,
    subgroup_sentences,
)
from tests.evaluate.clinical.drawn_page import clinical_evaluation


@pytest.mark.parametrize(
    ("temperature", "real", "sentence"),
    [
        (
            1.4,
            True,
            "Temperature scaling (temperature 1.4, fitted on val) changes the Brier score by "
            "\u22120.020 [\u22120.030, \u22120.010]: more than chance.",
        ),
        (
            1.4,
            False,
            "Temperature scaling (temperature 1.4, fitted on val) changes the Brier score by "
            "\u22120.020 [\u22120.030, \u22120.010]: this may be chance.",
        ),
        (
            1.0,
            False,
            "No temperature was fitted on val, so calibrated and uncalibrated probabilities are the same.",
        ),
    ],
)
def test_the_effect_of_scaling_is_named_with_its_interval(
    temperature: float, real: bool, sentence: str
) -> None:
    change = {"value": -0.02, "ci95": [-0.03, -0.01], "real": real}
    clinical = {"temperature": temperature, "calibration": {"change": {"brier": change}}, "questions": {}}
    assert clinical_sentences(clinical) == [sentence]


@pytest.mark.parametrize("unit", ["image", "volume", "eye", "patient"])
def test_explanations_name_what_is_scored(unit: str) -> None:
    points, curves = explanations(unit)
    assert points.startswith(f"Positive for a class is each {unit} with ")
    assert f"the share of positive {unit}s in test" in points
    assert f"needed treatments for each {unit}, at" in curves
    assert unit == "image" or "image" not in points + curves


def test_one_question_says_where_the_classifier_is_useful() -> None:
    clinical = clinical_evaluation(Clinical(positive=("MH",))).metrics["clinical"]
    assert clinical_sentences(clinical)[1].startswith("MH or not: the classifier is clearly better")


def test_usefulness_is_a_range_of_thresholds_or_nowhere() -> None:
    def curve(*ranges: list[float]) -> dict[str, Any]:
        return {"decision_curve": {"useful": list(ranges)}}

    assert describe_usefulness(curve([0.05, 0.6], [0.7, 0.71])).endswith("of 5 % to 60 %, 70 % to 71 %.")
    assert describe_usefulness(curve()).startswith("at no threshold probability")


def test_clear_gaps_are_named_and_others_counted() -> None:
    gap = {"value": -0.2, "ci95": [-0.3, -0.1], "p_holm": 0.01, "clear": True}
    groups = {"F": {"gap": None}, "M": {"gap": {"auroc": gap}}}
    tree: dict[str, Any] = {
        "columns": {"sex": {"reference": "F", "groups": groups}},
        "comparisons": 3,
        "notes": ["sex: 'F' = 'f' are read as one value"],
    }
    assert subgroup_sentences(tree) == [
        "Larger than chance: AUROC of sex M (\u22120.200 [\u22120.300, \u22120.100] against F, p 0.01).",
        "Sex: 'F' = 'f' are read as one value.",
    ]
    groups["M"]["gap"] = {"auroc": {**gap, "clear": False}}
    assert subgroup_sentences(tree)[0].startswith("No gap is larger than chance, after correction for 3")
    assert subgroup_sentences({**tree, "comparisons": 0})[0] == "No two groups of a column can be compared."
