"""Curves of the test part: means over classes agree with scikit-learn's, bands hold them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from retfound_dist.evaluate import ranked
from tests.evaluate.made import predictions


def test_the_mean_curves_are_the_means_of_scikit_learns() -> None:
    row = predictions(seed=0)
    heights = []
    for c in range(3):
        false, true, _ = roc_curve(row.labels_N == c, row.probabilities_NC[:, c], drop_intermediate=False)
        heights.append(np.interp(ranked.GRID, false, true))
    line = ranked.mean_roc(row, 0)
    assert line is not None
    assert np.asarray(line.y)[1:] == pytest.approx(np.mean(heights, axis=0)[1:])
    area = roc_auc_score(np.eye(3)[row.labels_N], row.probabilities_NC, average="macro")
    assert auc(line.x, line.y) == pytest.approx(area, abs=0.02)
    precise = ranked.mean_pr(row, 0)
    assert precise is not None
    average = average_precision_score(np.eye(3)[row.labels_N], row.probabilities_NC, average="macro")
    assert np.mean(precise.y) == pytest.approx(average, abs=0.02)


def test_the_band_holds_the_curve_and_is_narrower_with_more_patients() -> None:
    few, many = (ranked.mean_roc(predictions(seed=1, images=n, patients=n // 3), 0) for n in (60, 600))
    widths = []
    for line in (few, many):
        assert line is not None
        assert line.band is not None
        low, high = line.band
        assert (low <= high).all()
        assert np.mean((low <= line.y) & (line.y <= high)) > 0.95
        widths.append(np.mean(high - low))
    assert widths[1] < widths[0] / 2


def test_images_of_one_patient_count_as_one_draw() -> None:
    """Twelve copies of each image under one patient are no more evidence than the image alone."""
    row = predictions(seed=2, images=60, patients=60)
    copied = predictions(seed=2, images=60, patients=60, copies=12)
    once, often = ranked.mean_roc(row, 0), ranked.mean_roc(copied, 0)
    assert once is not None
    assert often is not None
    assert once.band is not None
    assert often.band is not None
    assert np.mean(often.band[1] - often.band[0]) == pytest.approx(np.mean(once.band[1] - once.band[0]), rel=0.1)


def test_a_class_without_images_has_no_curve_and_spoils_no_mean() -> None:
    row = predictions(seed=3, absent=(2,))
    assert [line.colour for line in ranked.roc_lines(row.labels_N, row.probabilities_NC)] == [0, 1]
    mean = ranked.mean_pr(row, 0)
    assert mean is not None
    assert np.isfinite(mean.y).all()
    assert ranked.mean_roc(predictions(seed=3, absent=(1, 2)), 0) is None
