"""The reliability diagram's bins, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.scores import calibration, metrics
from tests.evaluate.made import predictions


def test_bins_hold_the_numbers_worked_out_by_hand() -> None:
    p = np.array([[0.95, 0.05], [0.96, 0.04], [0.94, 0.06], [0.4, 0.6], [0.55, 0.45]])
    low, high = calibration.calibration_bins(np.array([0, 0, 1, 1, 1]), p)
    assert (low.index, low.images, low.accuracy) == (8, 2, 0.5)
    assert low.confidence == pytest.approx(0.575)
    assert (high.index, high.images) == (14, 3)
    assert high.accuracy == pytest.approx(2 / 3)
    z, share = 1.959964, 2 / 3
    centre, reach = share + z**2 / 6, z * np.sqrt(share * (1 - share) / 3 + z**2 / 36)
    assert high.interval == pytest.approx(
        ((centre - reach) / (1 + z**2 / 3), (centre + reach) / (1 + z**2 / 3))
    )


def test_the_bins_add_up_to_the_calibration_error_of_the_table() -> None:
    row = predictions(seed=0)
    held = calibration.calibration_bins(row.labels_N, row.probabilities_NC)
    gap = sum(b.images * abs(b.accuracy - b.confidence) for b in held) / len(row.labels_N)
    assert gap == pytest.approx(row.metrics["macro"]["ece"])
    assert sum(b.images for b in held) == len(row.labels_N)
    assert max(b.index for b in held) < metrics.ECE_BINS
