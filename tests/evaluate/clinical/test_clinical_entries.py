"""`clinical` of metrics.json: thresholds of val applied to test, null with a reason where there are none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.clinical_entries import clinical_entries, kept_thresholds
from retfound_dist.evaluate.scores.temperature import scale_by_temperature
from tests.evaluate.clinical.drawn import drawn_predictions, scored

VAL_LABELS, VAL_P = drawn_predictions(150, 3, seed=1)
LABELS, P = drawn_predictions(180, 3, seed=2)


def test_a_threshold_of_val_is_applied_to_calibrated_test_probabilities() -> None:
    images = scored(LABELS, P, temperature=1.6)
    entries = clinical_entries(images, VAL_LABELS, VAL_P[0], Clinical(prevalence={"B": 0.02}))
    assert entries["temperature"] == 1.6
    for place, (name, question) in enumerate(entries["questions"].items()):
        assert question["classes"] == [name]
        assert question["positives"] == int(np.sum(np.equal(LABELS, place)))
        score = scale_by_temperature(P[0], 1.6).round(8)[:, place]
        for point in question["operating_points"]:
            called, truth, test = score >= point["threshold"], np.equal(LABELS, place), point["test"]
            assert test["sensitivity"] == pytest.approx((called & truth).sum() / truth.sum())
            assert test["specificity"] == pytest.approx((~called & ~truth).sum() / (~truth).sum())
            assert test["ppv"] == pytest.approx((called & truth).sum() / called.sum())
            assert test["ci95"]["sensitivity"][0] <= test["sensitivity"] <= test["ci95"]["sensitivity"][1]
            assert ("at_prevalence" in test) == (name == "B")
            on_val = scale_by_temperature(VAL_P[0], 1.6).round(8)[:, place] >= point["threshold"]
            of_class = np.equal(VAL_LABELS, place)
            assert point["val"]["sensitivity"] == pytest.approx((on_val & of_class).sum() / of_class.sum())
            assert point["val"][point["target"]["rate"]] >= point["target"]["level"]
    json.dumps(entries, allow_nan=False)


def test_the_roc_reading_has_the_other_rate_and_falls_as_its_level_rises() -> None:
    entries = clinical_entries(scored(LABELS, P), VAL_LABELS, VAL_P[0], Clinical(positive=("A", "B")))
    (question,) = entries["questions"].values()
    readings = {
        (point["target"]["rate"], point["target"]["level"]): point["test_roc"]
        for point in question["operating_points"]
    }
    assert readings["specificity", 0.9]["sensitivity"] >= readings["specificity", 0.95]["sensitivity"]
    for (rate, _), reading in readings.items():
        assert set(reading) == {"ci95", "reason", "sensitivity" if rate == "specificity" else "specificity"}
        assert reading["ci95"] is not None


def test_without_val_there_is_no_threshold_and_the_curve_of_test_is_still_read() -> None:
    entries = clinical_entries(scored(LABELS, P), None, None, Clinical())
    for question in entries["questions"].values():
        for point in question["operating_points"]:
            assert point["threshold"] is None
            assert point["test"] is None
            assert point["reason"] == "there is no val part"
            assert point["test_roc"]["ci95"] is not None


def test_an_external_set_without_val_images_of_its_classes_is_not_told_that_there_is_no_val_part() -> None:
    images = replace(scored(LABELS, P), unit="eye")
    entries = clinical_entries(images, VAL_LABELS[:0], VAL_P[0][:0], Clinical())
    points = [point for question in entries["questions"].values() for point in question["operating_points"]]
    assert {point["reason"] for point in points} == {"val has no eye of the classes that are tested"}


def test_a_class_without_test_images_has_no_rate_but_a_reason() -> None:
    some = LABELS != 2
    entries = clinical_entries(scored(LABELS[some], P[:, some]), VAL_LABELS, VAL_P[0], Clinical())
    point = entries["questions"]["C"]["operating_points"][0]
    assert point["test"]["sensitivity"] is None
    assert point["test"]["undefined"]["sensitivity"] == "no test image of C"
    assert point["test_roc"] == {"sensitivity": None, "ci95": None, "reason": "no test image is of C"}
    json.dumps(entries, allow_nan=False)


def test_a_classifier_keeps_its_thresholds_without_the_scores_of_test() -> None:
    entries = clinical_entries(scored(LABELS, P), VAL_LABELS, VAL_P[0], Clinical(positive=("A", "B")))
    kept = kept_thresholds(entries)
    assert kept["A or B"]["classes"] == ["A", "B"]
    assert [set(point) for point in kept["A or B"]["points"]] == [
        {"target", "threshold", "reason", "val"}
    ] * 4
    assert kept_thresholds(None) == {}
