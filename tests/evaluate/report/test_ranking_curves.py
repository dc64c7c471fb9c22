"""Curves of the test part: means over classes agree with scikit-learn's, bands hold them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from retfound_dist.evaluate.report import ranking_curves
from retfound_dist.evaluate.scores.ranking_sums import Chunk, rank
from tests.evaluate.made import predictions


def test_the_mean_curves_are_the_means_of_scikit_learns() -> None:
    row = predictions(seed=0)
    heights = []
    for c in range(3):
        false, true, _ = roc_curve(row.labels_N == c, row.probabilities_NC[:, c], drop_intermediate=False)
        heights.append(np.interp(ranking_curves.GRID, false, true))
    both = ranking_curves.mean_curves(row, 0)
    assert both is not None
    line, precise = both.roc, both.pr
    assert np.asarray(line.y)[1:] == pytest.approx(np.mean(heights, axis=0)[1:])
    area = roc_auc_score(np.eye(3)[row.labels_N], row.probabilities_NC, average="macro")
    assert auc(line.x, line.y) == pytest.approx(area, abs=0.02)
    average = average_precision_score(np.eye(3)[row.labels_N], row.probabilities_NC, average="macro")
    assert np.mean(precise.y) == pytest.approx(average, abs=0.02)


def test_the_band_holds_the_curve_and_is_narrower_with_more_patients() -> None:
    few, many = (
        ranking_curves.mean_curves(predictions(seed=1, images=n, patients=n // 3), 0) for n in (60, 600)
    )
    widths = []
    for both in (few, many):
        assert both is not None
        line = both.roc
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
    one, many = ranking_curves.mean_curves(row, 0), ranking_curves.mean_curves(copied, 0)
    assert one is not None
    assert many is not None
    once, often = one.roc, many.roc
    assert once.band is not None
    assert often.band is not None
    assert np.mean(often.band[1] - often.band[0]) == pytest.approx(
        np.mean(once.band[1] - once.band[0]), rel=0.1
    )


def test_a_class_without_images_has_no_curve_and_spoils_no_mean() -> None:
    row = predictions(seed=3, absent=(2,))
    assert [both.pr.colour for both in ranking_curves.class_curves(row)] == [0, 1]
    mean = ranking_curves.mean_curves(row, 0)
    assert mean is not None
    assert np.isfinite(mean.pr.y).all()
    assert ranking_curves.mean_curves(predictions(seed=3, absent=(1, 2)), 0) is None


def test_curves_of_many_images_are_scikit_learns_with_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drawn point lies on the whole curve, and no point of the whole one lies a column away from what is drawn."""
    row = predictions(seed=4, images=3000, patients=300)
    whole = ranking_curves.class_curves(row)
    monkeypatch.setattr(ranking_curves, "COLUMNS", 50)
    for c, (drawn, full) in enumerate(zip(ranking_curves.class_curves(row), whole, strict=True)):
        truth, score = row.labels_N == c, row.probabilities_NC[:, c]
        false, true, _ = roc_curve(truth, score, drop_intermediate=False)
        precision, recall, _ = precision_recall_curve(truth, score)
        for line, x, y in ((drawn.roc, false, true), (drawn.pr, recall[:-1], precision[:-1])):
            assert len(line.x) <= 200
            on_it = np.abs(x[:, None] - line.x) + np.abs(y[:, None] - line.y)
            assert on_it.min(0)[1:].max() < 1e-12
            along = np.linspace(0, len(line.x) - 1, 20 * len(line.x))
            line_x, line_y = (np.interp(along, np.arange(len(line.x)), value) for value in (line.x, line.y))
            beside = np.maximum(np.abs(x[:, None] - line_x), np.abs(y[:, None] - line_y)).min(1)
            assert beside.max() < 1 / ranking_curves.COLUMNS
        assert auc(full.roc.x, full.roc.y) == pytest.approx(roc_auc_score(truth, score), abs=1e-3)


def test_the_grid_is_read_as_from_every_score_in_each_resample() -> None:
    """Against the long way: all distinct scores, with weights, ties and a resample that leaves scores out."""
    draw = np.random.default_rng(5)
    truth, score = draw.random(300) < 0.2, np.round(draw.random(300), 2)
    weights = draw.poisson(1, (30, 300)).astype(np.uint8)
    weights[0, score > 0.5] = 0
    ranking = rank(truth, score)
    for r, (true_V, false_V) in enumerate(
        zip(
            *(
                ranking_curves._counts_from_zero(each, Chunk(weights))
                for each in (ranking.positives, ranking.negatives)
            ),
            strict=True,
        )
    ):
        roc, pr = ranking_curves._curves_on_grid(true_V, false_V)
        false, true, _ = roc_curve(truth, score, sample_weight=weights[r], drop_intermediate=False)
        assert roc[1:] == pytest.approx(np.interp(ranking_curves.GRID, false, true)[1:], abs=1e-12)
        falling = np.unique(score[weights[r] > 0])[::-1]
        seen = np.array([(weights[r] * (score >= s)).sum() for s in falling])
        right = np.array([(weights[r] * truth * (score >= s)).sum() for s in falling])
        first = [np.flatnonzero(right >= (g - 1e-9) * right[-1])[0] for g in ranking_curves.GRID]
        assert pr == pytest.approx((right / seen)[first], abs=1e-12)
    nothing = ranking_curves._curves_on_grid(np.array([0.0, 0.0, 0.0]), np.array([0.0, 1.0, 2.0]))
    assert np.isnan(nothing).all()
