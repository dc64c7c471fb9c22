"""Probabilities before and after scaling are those of predictions.csv and of `predict`."""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.scores.temperature import scale_by_temperature
from tests.evaluate.clinical.drawn import drawn_predictions, scored


def test_probabilities_are_the_mean_over_seeds_before_and_after_scaling() -> None:
    labels_N, p_SNC = drawn_predictions(20, 3, seeds=2)
    images = scored(labels_N, p_SNC, temperature=2.0)
    mean_NC = p_SNC.mean(0).round(8)
    assert np.array_equal(images.raw_NM, mean_NC)
    assert np.array_equal(images.calibrated_NM, scale_by_temperature(mean_NC, 2.0).round(8))
    assert (images.calibrated_NM.max(1) < images.raw_NM.max(1)).sum() > 15


def test_patients_are_counted_once() -> None:
    images = scored(*drawn_predictions(20, 3), each=4)
    assert images.units_among(np.arange(20) < 9) == 3
    assert images.resamples == 60
