"""ROC and precision-recall curves, of each class and as the mean over classes with its interval.

A curve is defined by its bends (`ranking_sums`); tests compare the curves with scikit-learn. A figure gets
only the points that it can show, so its size does not grow with the number of images.

Shapes: N images, C classes, R resamples, G points of a grid, V bends of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retfound_dist.evaluate.report.figures import Line, class_line
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.scores.ranking_sums import Chunk, Weights, rank

GRID = np.linspace(0, 1, 101)
RESAMPLES = 200
"""For bands, which need fewer resamples than the digits of an interval."""
COLUMNS = 500
"""Columns of a figure. Of the points in one column, the first, lowest, highest and last are drawn."""
MAX_SCORES = 5_000
"""Number of scores of positives of each class in a mean curve: more are not visible in a figure."""
_CHUNK = 16_000_000
"""Number of weights that are processed at a time."""


@dataclass(frozen=True)
class Curves:
    """ROC and precision over recall as lines."""

    roc: Line
    pr: Line


def class_curves(labels_N: Labels, probabilities_NC: Floats) -> list[Curves]:
    """One-vs-rest curves of each class that has images; precision starts at the highest score."""
    unit_weights, curves = Chunk(np.ones((1, len(labels_N)), np.uint8)), []
    for c in _defined_classes(labels_N, probabilities_NC):
        true_V, false_V = (
            counts_VR[:, 0] for counts_VR in rank(labels_N == c, probabilities_NC[:, c]).counts(unit_weights)
        )
        seen = true_V + false_V > 0
        roc = _visible_points(np.append(0, false_V / false_V[-1]), np.append(0, true_V / true_V[-1]))
        pr = _visible_points(true_V[seen] / true_V[-1], true_V[seen] / (true_V + false_V)[seen])
        curves.append(Curves(class_line(*roc, c), class_line(*pr, c)))
    return curves


def mean_curves(evaluation: Evaluation, colour_index: int) -> Curves | None:
    """The mean over classes of the one-vs-rest curves, with 95 % bands; None for a single class.

    Precision is taken at the first score that reaches each recall. Bands are from a bootstrap over patients,
    as for the scores, without resamples that lack a class.
    """
    labels_N, probabilities_NC = evaluation.labels_N, evaluation.probabilities_NC
    classes = _defined_classes(labels_N, probabilities_NC)
    if not classes:
        return None
    _, units_N = bootstrap.resampling_units(evaluation.patients, evaluation.keys, evaluation.units)
    unit_weights_1N = np.ones((1, len(labels_N)), np.uint8)
    # The first row of weights counts each image once, so it gives the curve itself.
    weights_RN = np.concatenate([unit_weights_1N, bootstrap.resample(units_N, RESAMPLES, 0)])
    roc_RG, pr_RG = _mean_of_classes(labels_N, probabilities_NC, classes, weights_RN)
    return Curves(_line_with_band(roc_RG, colour_index), _line_with_band(pr_RG, colour_index))


def _defined_classes(labels_N: Labels, probabilities_NC: Floats) -> list[int]:
    return [c for c in range(probabilities_NC.shape[1]) if 0 < (labels_N == c).sum() < len(labels_N)]


def _mean_of_classes(
    labels_N: Labels, probabilities_NC: Floats, classes: list[int], weights_RN: Weights
) -> tuple[Floats, Floats]:
    """(R, G) both: sensitivity at each false positive rate, precision at each recall; NaN where undefined."""
    rankings = [rank(labels_N == c, probabilities_NC[:, c], MAX_SCORES) for c in classes]
    sums_2RG = np.zeros((2, len(weights_RN), len(GRID)))
    # In chunks, because all resamples at once need several arrays of (resamples x images).
    rows = max(1, _CHUNK // len(labels_N))
    for start in range(0, len(weights_RN), rows):
        chunk_rows, chunk = slice(start, start + rows), Chunk(weights_RN[start : start + rows])
        for ranking in rankings:
            true_RV, false_RV = (np.ascontiguousarray(counts_VR.T) for counts_VR in ranking.counts(chunk))
            grid_curves = [_curves_on_grid(*each) for each in zip(true_RV, false_RV, strict=True)]
            sums_2RG[:, chunk_rows] += np.swapaxes(grid_curves, 0, 1)
    roc_RG, pr_RG = sums_2RG / len(classes)
    return roc_RG, pr_RG


def _curves_on_grid(true_V: Floats, false_V: Floats) -> tuple[Floats, Floats]:
    """Sensitivity at each false positive rate of GRID, and precision at each recall of GRID, (G,) both.

    `true_V`, `false_V`: true and false positives at each bend, of one class in one resample. NaN where the
    resample has no image of the class, or only images of it.
    """
    if not true_V[-1] or not false_V[-1]:
        return np.full(len(GRID), np.nan), np.full(len(GRID), np.nan)
    true_V, false_V = np.append(0, true_V), np.append(0, false_V)
    roc_G = np.interp(GRID * false_V[-1], false_V, true_V) / true_V[-1]
    # At 0 false positives np.interp gives the upper end of a vertical segment, but the curve begins at the
    # lower end.
    roc_G[0] = 0
    first = np.searchsorted(true_V + false_V, 0, "right")  # the first score with any weight
    # The tolerance is for a recall that is reached exactly but for rounding.
    at_G = np.maximum(first, np.searchsorted(true_V, (GRID - 1e-9) * true_V[-1]))
    return roc_G, true_V[at_G] / (true_V + false_V)[at_G]


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
