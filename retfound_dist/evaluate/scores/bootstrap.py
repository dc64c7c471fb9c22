"""95 % intervals by bootstrap over patients (volumes or images where no patient is known), and over seeds.

A resample draws as many patients as there are, with replacement. Each image of a patient counts as often as
the patient was drawn. So a resample is a weight for each image, and many resamples are scored at once
(`ranking_sums` sums the weights). The scores are those of `metrics`, with weights; tests compare them with
scikit-learn. Where there are several fine-tunings, a resample also draws as many of them, and scores the
mean of their probabilities.

Shapes: N images, C classes, R resamples, S seeds, K different draws of seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.scores.metrics import (
    LEGACY,
    MACRO,
    Floats,
    Labels,
    calibration_gaps,
    legacy_scores,
    macro_scores,
)
from retfound_dist.evaluate.scores.ranking_sums import (
    Chunk,
    Ranking,
    Segments,
    Weights,
    group_by_number,
    rank,
)
from retfound_dist.listing.split_units import Unit, least_safe_kind

Interval = list[float] | None
ResampledScores = dict[str, dict[str, Floats]]
"""`legacy` and `macro` -> score -> its value in each resample (R,); NaN where it is not defined."""
ProgressCallback = Callable[[int, int], None]
"""Called with the work done so far, and the total."""
LEVEL = 0.95
# These are 32 MB in float64, the widest type of the sums.
_CHUNK = 4_000_000
"""Weights scored at a time."""
# As in `metrics.mean_log_loss`, so that an interval belongs to exactly the score beside it.
_MIN_PROBABILITY = 1e-12
_MAX_UNDEFINED = 0.5
"""There is no interval where the score is undefined in a larger share of the resamples."""


def resampling_units(
    patients: Sequence[str | None], keys: Sequence[str], units: Sequence[Unit] = ()
) -> tuple[str, NDArray[np.int64]]:
    """(`patient`, `volume`, `folder` or `image`; the unit number of each image (N,)).

    `units`: `SplitPart.units`. Slices of one volume are nearly equal, so they are drawn together. The kind is
    the weakest that occurs; images that are known to belong together are still drawn together.
    """
    kind, names = "image", list(keys)
    if None not in patients:
        kind, names = "patient", [*map(str, patients)]
    elif units:
        kind = least_safe_kind(Counter(unit_kind for unit_kind, _ in units))
        names = [f"{unit_kind} {name}" for unit_kind, name in units]
    # Sorted, so that the number of a unit, and its draws, do not depend on the order of the images.
    unit_numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return kind, np.fromiter(map(unit_numbers.__getitem__, names), np.int64, len(names))


def resample(units_N: NDArray[np.int64], resamples: int, seed: int) -> Weights:
    """(R, N): how often each image is in each resample; integers of the smallest type that holds them."""
    draws = _draws(int(units_N.max()) + 1, resamples, seed)
    # One resample at a time, because all draws at once would take 8 bytes for each resample and unit.
    return np.stack([draws_U[units_N] for draws_U in draws])


@dataclass(frozen=True)
class UnitDraws:
    """What the bootstrap draws of the images of a test."""

    unit: str
    """`patient`, `volume`, `folder` or `image`."""
    units_N: NDArray[np.int64]
    """The unit number of each image."""
    weights_RN: Weights
    """How often each image is in each resample."""


def draw_units(
    patients: Sequence[str | None], keys: Sequence[str], units: Sequence[Unit], resamples: int
) -> UnitDraws:
    """The resamples of a test; the arguments as in `resampling_units`."""
    unit, units_N = resampling_units(patients, keys, units)
    return UnitDraws(unit, units_N, resample(units_N, resamples, 0))


def resample_units(count: int, resamples: int, seed: int) -> Weights:
    """(R, units): how often each of `count` units is in each resample, with the draws of `resample`."""
    return np.stack(list(_draws(count, resamples, seed)))


def _draws(count: int, resamples: int, seed: int) -> Iterator[Weights]:
    """For each resample how often each unit is drawn, in the smallest type that holds it."""
    # The draws depend only on the seed and the number of units: evaluations of the same test images get the
    # same resamples, as `paired_difference` needs.
    generator = np.random.default_rng([seed, count])
    for _ in range(resamples):
        draws_U = np.bincount(generator.integers(0, count, size=count), minlength=count)
        yield draws_U.astype(np.min_scalar_type(draws_U.max()))


def mean_probabilities(probabilities_SNC: Floats) -> Floats:
    """Mean probabilities of several fine-tunings (N, C)."""
    mean_NC: Floats = probabilities_SNC.mean(0)
    return mean_NC


def scores_over_seeds(
    labels_N: Labels,
    probabilities_SNC: Floats,
    weights_RN: Weights,
    combine: Callable[[Floats], Floats] = mean_probabilities,
    on_progress: ProgressCallback | None = None,
    members_N: NDArray[np.int64] | None = None,
) -> ResampledScores:
    """Scores of the mean probabilities of the fine-tunings; each resample draws its own seeds.

    `combine`: computes the probabilities to score from those of the drawn seeds (S, N, C); their mean by
    default. The order of the seeds must not matter to it. The draws depend only on the numbers of seeds and
    resamples, so rows of a comparison are paired by seed as well as by patient. `members_N`: where the labels
    and probabilities are of some images only, their columns in the weights.
    """
    resamples = len(weights_RN)
    resampled, done = _empty(resamples), 0
    for draw_S, resamples_with_draw_R in distinct_seed_draws(len(probabilities_SNC), resamples):
        report_part = shifted_progress(done, resamples, on_progress)
        drawn_NC = combine(probabilities_SNC[draw_S])
        draw_scores = scores(labels_N, drawn_NC, weights_RN, report_part, resamples_with_draw_R, members_N)
        for kind, group in resampled.items():
            for name, values_R in group.items():
                values_R[resamples_with_draw_R] = draw_scores[kind][name]
        done += len(resamples_with_draw_R)
    return resampled


def distinct_seed_draws(seeds: int, resamples: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(A draw of the seeds (S,), sorted; the resamples that have this draw.)"""
    seed_draws_RS = np.random.default_rng([seeds, resamples]).integers(0, seeds, (resamples, seeds))
    # The order of the seeds does not matter, so draws are sorted and each distinct draw is scored once. Three
    # seeds have only ten distinct draws.
    distinct_draws_KS, draw_index_R = np.unique(np.sort(seed_draws_RS), axis=0, return_inverse=True)
    for draw_index, draw_S in enumerate(distinct_draws_KS):
        # In NumPy 2.0.0 the inverse has a second axis of length 1; in other versions it has not.
        yield draw_S, np.flatnonzero(draw_index_R.reshape(-1) == draw_index)


def chunks(resamples: int, images: int) -> Iterator[slice]:
    """Slices of the resamples that are scored at a time, so that memory does not grow with their number."""
    rows = max(1, _CHUNK // max(1, images))
    for start in range(0, resamples, rows):
        yield slice(start, min(start + rows, resamples))


def _empty(resamples: int) -> ResampledScores:
    """Empty arrays for the scores of this many resamples."""
    kinds = (("legacy", LEGACY), ("macro", MACRO))
    return {kind: {name: np.empty(resamples) for name in names} for kind, names in kinds}


def shifted_progress(done: int, total: int, on_progress: ProgressCallback | None) -> ProgressCallback | None:
    """A callback that reports progress of one part as progress of the whole."""
    return None if on_progress is None else lambda more, _: on_progress(done + more, total)


def scores(
    labels_N: Labels,
    probabilities_NC: Floats,
    weights_RN: Weights,
    on_progress: ProgressCallback | None = None,
    selected_R: NDArray[np.int64] | None = None,
    members_N: NDArray[np.int64] | None = None,
) -> ResampledScores:
    """The scores of predictions in every resample, or in the resamples `selected_R`.

    `members_N`: as in `scores_over_seeds`.
    """
    predicted = _prepare_predictions(labels_N, probabilities_NC)
    if selected_R is None:
        selected_R = np.arange(len(weights_RN))
    resampled = _empty(len(selected_R))
    for chunk_rows in chunks(len(selected_R), len(labels_N)):
        rows = selected_R[chunk_rows]
        # Columns are taken from a chunk, for a copy of all would be as large as the weights.
        chosen_RN = weights_RN[rows] if members_N is None else weights_RN[np.ix_(rows, members_N)]
        chunk_scores = _resampled_scores(predicted, chosen_RN)
        for kind, group in resampled.items():
            for name, values_R in group.items():
                values_R[chunk_rows] = chunk_scores[kind][name]
        if on_progress is not None:
            on_progress(chunk_rows.stop, len(selected_R))
    return resampled


def intervals(resampled: ResampledScores) -> dict[str, dict[str, Interval]]:
    """The percentile interval of each score, under the same two keys as in `resampled`: kind, then score."""
    return {
        kind: {name: interval(values) for name, values in group.items()} for kind, group in resampled.items()
    }


def interval(values_R: Floats) -> Interval:
    """[2.5 %, 97.5 %] over the resamples where the score is defined; None where it is mostly undefined."""
    defined = values_R[np.isfinite(values_R)]
    if len(defined) < (1 - _MAX_UNDEFINED) * len(values_R) or not len(defined):
        return None
    tail = (1 - LEVEL) / 2
    return [float(v) for v in np.quantile(defined, [tail, 1 - tail])]


def paired_difference(one: Floats, other: Floats) -> dict[str, Any]:
    """The interval of the difference of two scores on the same resamples; `real`: it does not contain 0."""
    span = interval(one - other)
    return {"ci95": span, "real": span is not None and (span[0] > 0 or span[1] < 0)}


@dataclass(frozen=True)
class _Predicted:
    """Everything about predictions that is the same in every resample."""

    classes: int
    cells: NDArray[np.int64]
    """Cells of the confusion matrix with an image, numbered truth times C plus prediction."""
    by_cell: Segments
    rankings: list[Ranking]
    numbers_NB: Floats
    """Columns: the gap in each bin of the calibration error, then -ln p(true class)."""


def _prepare_predictions(labels_N: Labels, probabilities_NC: Floats) -> _Predicted:
    """Compute once what the scores of all resamples need."""
    classes = probabilities_NC.shape[1]
    cells, by_cell = group_by_number(labels_N * classes + probabilities_NC.argmax(1))
    true_N = np.clip(probabilities_NC, _MIN_PROBABILITY, None)[np.arange(len(labels_N)), labels_N]
    return _Predicted(
        classes,
        cells,
        by_cell,
        [rank(labels_N == c, probabilities_NC[:, c]) for c in range(classes)],
        np.column_stack([calibration_gaps(labels_N, probabilities_NC), -np.log(true_N)]),
    )


def _resampled_scores(predicted: _Predicted, weights_RN: Weights) -> ResampledScores:
    """All scores for each of R weightings of the images."""
    classes, chunk = predicted.classes, Chunk(weights_RN)
    cells_RX = np.zeros((len(weights_RN), classes * classes))
    cells_RX[:, predicted.cells] = predicted.by_cell.sums(chunk).T
    confusion_RCC = cells_RX.reshape(-1, classes, classes)
    ranked = [_areas(*ranking.counts(chunk)) for ranking in predicted.rankings]
    auroc_R, aupr_R = np.mean(ranked, axis=0)
    # The gap of a bin is linear in the weights, so one product gives it for all resamples. The absolute value
    # is not linear, so it comes after the sum.
    means_RB = weights_RN.astype(np.float64) @ predicted.numbers_NB / weights_RN.sum(1)[:, None]
    curves = {"auroc": auroc_R, "aupr": aupr_R}
    extra = {"log_loss": means_RB[:, -1], "ece": np.abs(means_RB[:, :-1]).sum(1)}
    return {
        "legacy": legacy_scores(confusion_RCC) | curves,
        "macro": macro_scores(confusion_RCC) | curves | extra,
    }


def weighted_ranking(
    truth_N: NDArray[np.bool_], score_N: Floats, weights_RN: Weights
) -> tuple[Floats, Floats]:
    """AUROC and average precision of one class for each weighting, (R,) both; ties as in scikit-learn."""
    return _areas(*rank(truth_N, score_N).counts(Chunk(weights_RN)))


def _areas(positive_VR: Floats, negative_VR: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision (R,) from true and false positives at each bend of a class's curves."""
    positives_R, negatives_R = positive_VR[-1], negative_VR[-1]
    new_positive_VR = np.diff(positive_VR, axis=0, prepend=0)
    new_negative_VR = np.diff(negative_VR, axis=0, prepend=0)
    seen_VR = positive_VR + negative_VR
    precision_VR = positive_VR / np.where(seen_VR > 0, seen_VR, 1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where the class has no weight, or all of it
        # Each negative counts the positives with a higher score, and half of those with its own score.
        area_R = (new_negative_VR * (positive_VR - new_positive_VR / 2)).sum(0) / (positives_R * negatives_R)
        average_R = (new_positive_VR * precision_VR).sum(0) / positives_R
    # In scikit-learn the average precision is 1 where a class has all images. Here it is undefined, as in
    # `metrics.ranking`.
    return area_R, np.where(negatives_R == 0, np.nan, average_R)
