"""ROC and precision-recall curves, of each class and as the mean over classes with its interval.

A curve is known by its bends (`stretches`); tests hold them equal to scikit-learn's. A figure gets only the
points that it can show, so that it stays small however many images there are.

Shapes: N images, C classes, R resamples, G points of a grid, V bends of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retfound_dist.evaluate.report.figures import Line, classed
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.scores.ranking_sums import Chunk, Weights, rank

GRID = np.linspace(0, 1, 101)
RESAMPLES = 200
"""For bands, which want less than an interval's digits."""
COLUMNS = 500
"""Of a figure: points that fall into one are drawn by the first, the lowest, the highest and the last."""
MOST_SCORES = 5_000
"""Of each class's positives that a mean curve goes through: more are not told apart in a figure."""
_CHUNK = 16_000_000
"""Weights looked at a time."""


@dataclass(frozen=True)
class Curves:
    """ROC and precision over recall as lines."""

    roc: Line
    pr: Line


def class_curves(labels_N: Labels, probabilities_NC: Floats) -> list[Curves]:
    """One-vs-rest curves of each class that the images hold; precision from the highest score on."""
    alone, curves = Chunk(np.ones((1, len(labels_N)), np.uint8)), []
    for c in _held(labels_N, probabilities_NC):
        true_V, false_V = (
            counts_VR[:, 0] for counts_VR in rank(labels_N == c, probabilities_NC[:, c]).counts(alone)
        )
        seen = true_V + false_V > 0
        roc = _visible(np.append(0, false_V / false_V[-1]), np.append(0, true_V / true_V[-1]))
        pr = _visible(true_V[seen] / true_V[-1], true_V[seen] / (true_V + false_V)[seen])
        curves.append(Curves(classed(*roc, c), classed(*pr, c)))
    return curves


def mean_curves(evaluation: Evaluation, place: int) -> Curves | None:
    """The mean over classes of the one-vs-rest curves, with 95 % bands; None of one class only.

    Precision is that at the first score which reaches each recall. Bands are by bootstrap over patients as
    for the scores; resamples without one of the classes are left out.
    """
    labels_N, p_NC = evaluation.labels_N, evaluation.probabilities_NC
    classes = _held(labels_N, p_NC)
    if not classes:
        return None
    _, units_N = bootstrap.units_of(evaluation.patients, evaluation.keys, evaluation.units)
    alone_1N = np.ones((1, len(labels_N)), np.uint8)
    # The first row of weights counts each image once: the curve itself comes from the same pass as its
    # band.
    weights_RN = np.concatenate([alone_1N, bootstrap.resample(units_N, RESAMPLES, 0)])
    roc_RG, pr_RG = _mean_of_classes(labels_N, p_NC, classes, weights_RN)
    return Curves(_banded(roc_RG, place), _banded(pr_RG, place))


def _held(labels_N: Labels, probabilities_NC: Floats) -> list[int]:
    return [c for c in range(probabilities_NC.shape[1]) if 0 < (labels_N == c).sum() < len(labels_N)]


def _mean_of_classes(
    labels_N: Labels, p_NC: Floats, classes: list[int], weights_RN: Weights
) -> tuple[Floats, Floats]:
    """(R, G) both: sensitivity at each share of false alarms, precision at each recall; NaN: not defined."""
    rankings = [rank(labels_N == c, p_NC[:, c], MOST_SCORES) for c in classes]
    sums_2RG = np.zeros((2, len(weights_RN), len(GRID)))
    # All resamples at once would take (resamples x images) numbers several times over.
    rows = max(1, _CHUNK // len(labels_N))
    for start in range(0, len(weights_RN), rows):
        here, chunk = slice(start, start + rows), Chunk(weights_RN[start : start + rows])
        for ranking in rankings:
            true_RV, false_RV = (np.ascontiguousarray(counts_VR.T) for counts_VR in ranking.counts(chunk))
            both = [_on_grid(*each) for each in zip(true_RV, false_RV, strict=True)]
            sums_2RG[:, here] += np.swapaxes(both, 0, 1)
    roc_RG, pr_RG = sums_2RG / len(classes)
    return roc_RG, pr_RG


def _on_grid(true_V: Floats, false_V: Floats) -> tuple[Floats, Floats]:
    """(G,) both, of one class in one resample."""
    if not true_V[-1] or not false_V[-1]:
        return np.full(len(GRID), np.nan), np.full(len(GRID), np.nan)
    true_V, false_V = np.append(0, true_V), np.append(0, false_V)
    roc_G = np.interp(GRID * false_V[-1], false_V, true_V) / true_V[-1]
    # At 0 false alarms np.interp gives the upper end of a vertical stretch. The curve begins at its lower
    # end.
    roc_G[0] = 0
    first = np.searchsorted(true_V + false_V, 0, "right")  # the first score that any weight has
    # The tolerance keeps rounding from missing a recall that is reached exactly.
    at_G = np.maximum(first, np.searchsorted(true_V, (GRID - 1e-9) * true_V[-1]))
    return roc_G, true_V[at_G] / (true_V + false_V)[at_G]


def _banded(heights_RG: Floats, place: int) -> Line:
    """The first row as a line, the others as its band; without one where most are not defined."""
    line = classed(GRID, heights_RG[0], place)
    drawn_RG = heights_RG[1:][np.isfinite(heights_RG[1:]).all(1)]
    # Resamples that lack a class have no mean curve. A band from the few others would be too narrow.
    if len(drawn_RG) < RESAMPLES / 2:
        return line
    low, high = np.quantile(drawn_RG, [0.025, 0.975], axis=0)
    return replace(line, band=(low, high))


def _visible(x_V: Floats, y_V: Floats) -> tuple[Floats, Floats]:
    """The points of a curve from 0 to 1, rising in x, that a figure can show."""
    if len(x_V) <= 4 * COLUMNS:
        return x_V, y_V
    column_V = np.minimum((x_V * COLUMNS).astype(np.int64), COLUMNS - 1)
    begins = np.flatnonzero(np.diff(column_V, prepend=-1))
    ends = np.append(begins[1:], len(x_V)) - 1
    by_height = np.lexsort((y_V, column_V))
    visible = np.unique(np.concatenate([begins, by_height[begins], by_height[ends], ends]))
    return x_V[visible], y_V[visible]
