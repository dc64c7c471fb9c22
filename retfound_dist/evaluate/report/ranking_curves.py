"""ROC and precision-recall curves, of each class and as the mean over classes with its interval.

A curve is defined by its bends (`ranking_sums`); tests compare the curves with scikit-learn. A figure gets
only the points that it can show, so its size does not grow with the number of images.

Shapes: N images, U units (patients), C classes, R resamples, G points of a grid, V bends of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from retfound_dist.evaluate.report.figures import Line, class_line
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.ranking_sums import Chunk, Ranking, Segments, Weights

GRID = np.linspace(0, 1, 101)
RESAMPLES = 200
"""For bands, which need fewer resamples than the digits of an interval."""
COLUMNS = 500
"""Columns of a figure. Of the points in one column, the first, lowest, highest and last are drawn."""
MAX_SCORES = 5_000
"""Number of scores of positives of each class in a mean curve: more are not visible in a figure."""
_CHUNK, _MAX_ROWS = 16_000_000, 100
"""Numbers of weights and of resamples that are processed at a time."""


@dataclass(frozen=True)
class Curves:
    """ROC and precision over recall as lines."""

    roc: Line
    pr: Line


def class_curves(evaluation: Evaluation) -> list[Curves]:
    """One-vs-rest curves of each class that has images; precision starts at the highest score."""
    unit_weights, curves = Chunk(np.ones((1, len(evaluation.labels_N)), np.uint8)), []
    for c, ranking in evaluation.rankings.items():
        true_V, false_V = (counts_VR[:, 0] for counts_VR in ranking.counts(unit_weights))
        has_calls_V = true_V + false_V > 0
        roc = _visible_points(np.append(0, false_V / false_V[-1]), np.append(0, true_V / true_V[-1]))
        recall_V = true_V[has_calls_V] / true_V[-1]
        pr = _visible_points(recall_V, true_V[has_calls_V] / (true_V + false_V)[has_calls_V])
        curves.append(Curves(class_line(*roc, c), class_line(*pr, c)))
    return curves


def mean_curves(evaluation: Evaluation, colour_index: int) -> Curves | None:
    """The mean over classes of the one-vs-rest curves, with 95 % bands; None for a single class.

    Precision is taken at the first score that reaches each recall. Bands are from a bootstrap over patients,
    as for the scores, without resamples that lack a class.
    """
    if not evaluation.rankings:
        return None
    _, units_N = bootstrap.resampling_units(evaluation.patients, evaluation.keys, evaluation.units)
    units = int(units_N.max()) + 1
    # The first row of weights counts each unit once, so it gives the curve itself.
    once_1U = np.ones((1, units), np.uint8)
    weights_RU = np.concatenate([once_1U, bootstrap.resample_units(units, RESAMPLES, 0)])
    # By unit: with several images of each patient there are fewer weights than images, and they are adjacent.
    rankings = [ranking.at_most(MAX_SCORES).by_unit(units_N) for ranking in evaluation.rankings.values()]
    roc_RG, pr_RG = _mean_of_classes(rankings, weights_RU)
    return Curves(_line_with_band(roc_RG, colour_index), _line_with_band(pr_RG, colour_index))


def _mean_of_classes(rankings: Sequence[Ranking], weights_RU: Weights) -> tuple[Floats, Floats]:
    """(R, G) both: sensitivity at each false positive rate, precision at each recall; NaN where undefined.

    `rankings`: by unit, of each class. `weights_RU`: how often each unit counts, with all its images.
    """
    sums_2RG = np.zeros((2, len(weights_RU), len(GRID)))
    # In chunks, because all resamples at once need several arrays of (resamples x units).
    rows = max(1, min(_MAX_ROWS, _CHUNK // weights_RU.shape[1]))
    for start in range(0, len(weights_RU), rows):
        chunk_rows, chunk = slice(start, start + rows), Chunk(weights_RU[start : start + rows])
        for ranking in rankings:
            true_RV, false_RV = (
                _counts_from_zero(ranking.positives, chunk),
                _counts_from_zero(ranking.negatives, chunk),
            )
            grid_curves = [_curves_on_grid(*each) for each in zip(true_RV, false_RV, strict=True)]
            sums_2RG[:, chunk_rows] += np.swapaxes(grid_curves, 0, 1)
    roc_RG, pr_RG = sums_2RG / len(rankings)
    return roc_RG, pr_RG


def _counts_from_zero(segments: Segments, chunk: Chunk) -> Floats:
    """(R, V): zero, then the number of images up to each bend."""
    sums_VR = segments.sums(chunk)
    counts_RV = np.zeros((sums_VR.shape[1], len(sums_VR) + 1))
    # Along adjacent numbers: a sum along the other axis takes twice the time.
    np.cumsum(sums_VR.T, axis=1, out=counts_RV[:, 1:])
    return counts_RV


def _curves_on_grid(true_V: Floats, false_V: Floats) -> tuple[Floats, Floats]:
    """Sensitivity at each false positive rate of GRID, and precision at each recall of GRID, (G,) both.

    `true_V`, `false_V`: zero, then true and false positives at each bend, of one class in one resample. NaN
    where the resample has no image of the class, or only images of it.
    """
    if not true_V[-1] or not false_V[-1]:
        return np.full(len(GRID), np.nan), np.full(len(GRID), np.nan)
    roc_G = np.interp(GRID * false_V[-1], false_V, true_V) / true_V[-1]
    # At 0 false positives np.interp gives the upper end of a vertical segment, but the curve begins at the
    # lower end.
    roc_G[0] = 0
    # The first score with any weight.
    first = min(np.searchsorted(true_V, 0, "right"), np.searchsorted(false_V, 0, "right"))
    # The tolerance is for a recall that is reached exactly but for rounding.
    at_G = np.maximum(first, np.searchsorted(true_V, (GRID - 1e-9) * true_V[-1]))
    return roc_G, true_V[at_G] / (true_V[at_G] + false_V[at_G])


def _line_with_band(heights_RG: Floats, colour_index: int) -> Line:
    """The first row as a line, the others as its band; no band where most are undefined."""
    line = class_line(GRID, heights_RG[0], colour_index)
    resampled_RG = heights_RG[1:][np.isfinite(heights_RG[1:]).all(1)]
    # Resamples without one of the classes have no mean curve. A band of a few others would be too narrow.
    if len(resampled_RG) < RESAMPLES / 2:
        return line
    low, high = np.quantile(resampled_RG, [0.025, 0.975], axis=0)
    return replace(line, band=(low, high))


def _visible_points(x_V: Floats, y_V: Floats) -> tuple[Floats, Floats]:
    """The points that a figure can show, of a curve from 0 to 1 that rises in x."""
    if len(x_V) <= 4 * COLUMNS:
        return x_V, y_V
    column_V = np.minimum((x_V * COLUMNS).astype(np.int64), COLUMNS - 1)
    begins = np.flatnonzero(np.diff(column_V, prepend=-1))
    ends = np.append(begins[1:], len(x_V)) - 1
    by_height = np.lexsort((y_V, column_V))
    visible = np.unique(np.concatenate([begins, by_height[begins], by_height[ends], ends]))
    return x_V[visible], y_V[visible]
