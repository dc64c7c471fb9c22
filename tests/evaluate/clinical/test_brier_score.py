"""The Brier score is scikit-learn's, its terms add up to it, and intervals are those of resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from retfound_dist.evaluate.clinical.brier_score import brier_terms, calibration_entries, sum_terms
from retfound_dist.evaluate.scores.metrics import calibration_error
from tests.evaluate.clinical.drawn import drawn_predictions, scored


def test_scores_are_those_of_scikit_learn() -> None:
    labels_N, p_SNC = drawn_predictions(200, 3)
    p_NC = p_SNC[0]
    terms = sum_terms(labels_N, p_NC)
    for c in range(3):
        assert terms["per_class"][c]["score"] == pytest.approx(brier_score_loss(labels_N == c, p_NC[:, c]))
    assert terms["score"] == pytest.approx(((p_NC - np.eye(3)[labels_N]) ** 2).sum(1).mean())


def test_terms_of_an_example_made_by_hand() -> None:
    """Ten images at 0.2, one of them positive; ten at 0.8, seven of them positive."""
    truth = np.array([1] + [0] * 9 + [1] * 7 + [0] * 3, dtype=bool)
    terms = brier_terms(truth, np.array([0.2] * 10 + [0.8] * 10))
    assert terms["reliability"] == pytest.approx((0.1**2 + 0.1**2) / 2)
    assert terms["resolution"] == pytest.approx(((0.1 - 0.4) ** 2 + (0.7 - 0.4) ** 2) / 2)
    assert terms["uncertainty"] == pytest.approx(0.24)
    assert terms["within_bins"] == pytest.approx(0, abs=1e-12)
    assert terms["score"] == pytest.approx(0.01 - 0.09 + 0.24)


def test_the_four_terms_give_the_score_whatever_is_in_a_bin() -> None:
    labels_N, p_SNC = drawn_predictions(500, 4)
    for terms in (sum_terms(labels_N, p_SNC[0]), brier_terms(labels_N == 2, p_SNC[0, :, 2])):
        total = terms["reliability"] - terms["resolution"] + terms["uncertainty"] + terms["within_bins"]
        assert total == pytest.approx(terms["score"], abs=1e-12)
        assert terms["within_bins"] != 0


def test_scaling_is_judged_on_the_same_resamples() -> None:
    labels_N, p_SNC = drawn_predictions(150, 3, seeds=2)
    images = scored(labels_N, p_SNC, temperature=10.0)
    entries = calibration_entries(images)
    before, after = entries["uncalibrated"], entries["calibrated"]
    assert after["brier"]["value"] == pytest.approx(sum_terms(labels_N, images.calibrated_NM)["score"])
    assert after["ece"]["value"] == pytest.approx(calibration_error(labels_N, images.calibrated_NM))
    assert entries["change"]["brier"]["value"] == pytest.approx(
        after["brier"]["value"] - before["brier"]["value"]
    )
    for part in (before, after):
        for entry in (part["brier"], part["ece"], *part["brier"]["per_class"].values()):
            assert entry["ci95"][0] < entry["ci95"][1]
        low, high = part["brier"]["ci95"]
        assert low < part["brier"]["value"] < high
    assert list(before["brier"]["per_class"]) == ["A", "B", "C"]
    # Good predictions have become nearly equal shares.
    assert entries["change"]["brier"]["real"]
    assert entries["change"]["brier"]["value"] > 0


def test_an_interval_is_the_quantiles_of_resampled_scores() -> None:
    labels_N, p_SNC = drawn_predictions(100, 3)
    images = scored(labels_N, p_SNC, resamples=40)
    squares_N = ((p_SNC[0] - np.eye(3)[labels_N]) ** 2).sum(1)
    drawn_R = [np.average(squares_N, weights=w) for w in images.weights_RN]
    spans = calibration_entries(images)["uncalibrated"]["brier"]["ci95"]
    assert spans == pytest.approx(np.quantile(drawn_R, [0.025, 0.975]))


def test_at_a_temperature_of_one_nothing_changes() -> None:
    entries = calibration_entries(scored(*drawn_predictions(80, 2)))
    assert entries["uncalibrated"] == entries["calibrated"]
    assert entries["change"]["brier"] == {"value": 0, "ci95": [0, 0], "real": False}
