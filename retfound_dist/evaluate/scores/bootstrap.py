"""95 % intervals by bootstrap over patients (volumes, images where no patient is known), and over seeds.

A resample draws as many patients as there are, with replacement; all images of a patient come along
as often as it was drawn. So a resample is a weight for each image, and many resamples are scored at
once (`ranking_sums` adds the weights up). The scores are those of `metrics`, weighted; tests hold them
equal to scikit-learn's. Where there are several fine-tunings, a resample draws as many of them too,
and scores the mean of their probabilities.

Shapes: N images, C classes, R resamples, S seeds, K different draws of seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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
    Stretches,
    Weights,
    group_by_number,
    rank,
)
from retfound_dist.listing.split_units import Unit, weakest

Interval = list[float] | None
Drawn = dict[str, dict[str, Floats]]
"""`legacy` and `macro`, each score for each resample (R,); NaN where not defined there."""
ProgressCallback = Callable[[int, int], None]
"""Called with the number of resamples scored so far, and their total."""
LEVEL = 0.95
# In float64, the widest type that sums are taken in, these are 32 MB.
_CHUNK = 4_000_000
"""Weights scored at a time."""
# As in `metrics.mean_log_loss`: an interval must be one of the very score that it stands beside.
_TINY = 1e-12
_MOST_UNDEFINED = 0.5
"""No interval where more resamples than this leave the score undefined."""


def units_of(
    patients: Sequence[str | None], keys: Sequence[str], units: Sequence[Unit] = ()
) -> tuple[str, NDArray[np.int64]]:
    """(`patient`, `volume`, `folder` or `image`, each image's unit number (N,)).

    `units` are those of `SplitPart.units`: slices of one volume are nearly alike, so they are one draw. The
    kind returned is the weakest that occurs; whatever is known to belong together is still drawn together.
    """
    kind, names = "image", list(keys)
    if None not in patients:
        kind, names = "patient", [*map(str, patients)]
    elif units:
        kind = weakest(Counter(unit_kind for unit_kind, _ in units))
        names = [f"{unit_kind} {name}" for unit_kind, name in units]
    # Sorted, so that a unit has the same number, and the same draws, whatever the order of the images.
    places = {name: place for place, name in enumerate(sorted(set(names)))}
    return kind, np.fromiter(map(places.__getitem__, names), np.int64, len(names))


def resample(units_N: NDArray[np.int64], resamples: int, seed: int) -> Weights:
    """(R, N): how often each image is in each resample; whole numbers in as few bytes as they need."""
    count = int(units_N.max()) + 1
    # Nothing but the seed and the number of units decides: two evaluations of the same test images get the
    # same resamples, which `paired` needs.
    draw = np.random.default_rng([seed, count])
    rows = []
    # One resample at a time: all draws at once would take 8 bytes for each resample and unit.
    for _ in range(resamples):
        times_U = np.bincount(draw.integers(0, count, size=count), minlength=count)
        rows.append(times_U.astype(np.min_scalar_type(times_U.max()))[units_N])
    return np.stack(rows)


def mean_of(probabilities_SNC: Floats) -> Floats:
    """Mean probabilities of several fine-tunings (N, C)."""
    mean_NC: Floats = probabilities_SNC.mean(0)
    return mean_NC


def over_seeds(
    labels_N: Labels,
    probabilities_SNC: Floats,
    weights_RN: Weights,
    together: Callable[[Floats], Floats] = mean_of,
    on_progress: ProgressCallback | None = None,
) -> Drawn:
    """Scores of the seeds' mean (or of what `together` makes of them); each resample draws the seeds anew.

    The draws follow from the numbers of seeds and resamples alone: two rows of a comparison are paired by
    seed as by patient.
    """
    seeds, resamples = len(probabilities_SNC), len(weights_RN)
    drawn_RS = np.random.default_rng([seeds, resamples]).integers(0, seeds, (resamples, seeds))
    # The mean of some seeds does not depend on their order, so draws are sorted and each distinct one is
    # scored once: three seeds have ten, however many resamples there are.
    sets_KS, set_R = np.unique(np.sort(drawn_RS), axis=0, return_inverse=True)
    resampled, done = _empty(resamples), 0
    for place, set_S in enumerate(sets_KS):
        # NumPy 2.0.0 gives the inverse with a second axis of length 1; other versions do not.
        here_R = np.flatnonzero(set_R.reshape(-1) == place)
        shifted_tick = _shifted_progress(done, resamples, on_progress)
        drawn = scores(labels_N, together(probabilities_SNC[set_S]), weights_RN, shifted_tick, here_R)
        for kind, group in resampled.items():
            for name, values_R in group.items():
                values_R[here_R] = drawn[kind][name]
        done += len(here_R)
    return resampled


def _empty(resamples: int) -> Drawn:
    """Empty arrays for the scores of this many resamples."""
    kinds = (("legacy", LEGACY), ("macro", MACRO))
    return {kind: {name: np.empty(resamples) for name in names} for kind, names in kinds}


def _shifted_progress(done: int, total: int, on_progress: ProgressCallback | None) -> ProgressCallback | None:
    """Reports the progress of one part as progress of the whole."""
    return None if on_progress is None else lambda more, _: on_progress(done + more, total)


def scores(
    labels_N: Labels,
    probabilities_NC: Floats,
    weights_RN: Weights,
    on_progress: ProgressCallback | None = None,
    some_R: NDArray[np.int64] | None = None,
) -> Drawn:
    """The scores of one set of predictions in every resample, or in some of them."""
    predicted = _prepare(labels_N, probabilities_NC)
    if some_R is None:
        some_R = np.arange(len(weights_RN))
    rows = max(1, _CHUNK // max(1, len(labels_N)))
    resampled = _empty(len(some_R))
    for start in range(0, len(some_R), rows):
        here = slice(start, start + rows)
        drawn = _scores(predicted, weights_RN[some_R[here]])
        for kind, group in resampled.items():
            for name, values_R in group.items():
                values_R[here] = drawn[kind][name]
        if on_progress is not None:
            on_progress(min(start + rows, len(some_R)), len(some_R))
    return resampled


def intervals(drawn: Drawn) -> dict[str, dict[str, Interval]]:
    """The percentile interval of each score."""
    return {kind: {name: interval(values) for name, values in group.items()} for kind, group in drawn.items()}


def interval(values_R: Floats) -> Interval:
    """[2.5 %, 97.5 %] over the resamples where the score is defined; None where most are not."""
    defined = values_R[np.isfinite(values_R)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(values_R) or not len(defined):
        return None
    tail = (1 - LEVEL) / 2
    return [float(v) for v in np.quantile(defined, [tail, 1 - tail])]


def paired(one: Floats, other: Floats) -> dict[str, Any]:
    """The interval of the difference of two scores on the same resamples; `real`: it leaves 0 out."""
    span = interval(one - other)
    return {"ci95": span, "real": span is not None and (span[0] > 0 or span[1] < 0)}


@dataclass(frozen=True)
class _Predicted:
    """The parts of a prediction that are the same in every resample."""

    classes: int
    cells: NDArray[np.int64]
    """Cells of the confusion matrix that hold an image: truth times C, plus prediction."""
    by_cell: Stretches
    rankings: list[Ranking]
    numbers_NB: Floats
    """Gaps in each bin of the calibration error, and last -ln p(true class)."""


def _prepare(labels_N: Labels, probabilities_NC: Floats) -> _Predicted:
    classes = probabilities_NC.shape[1]
    cells, by_cell = group_by_number(labels_N * classes + probabilities_NC.argmax(1))
    true_N = np.clip(probabilities_NC, _TINY, None)[np.arange(len(labels_N)), labels_N]
    return _Predicted(
        classes,
        cells,
        by_cell,
        [rank(labels_N == c, probabilities_NC[:, c]) for c in range(classes)],
        np.column_stack([calibration_gaps(labels_N, probabilities_NC), -np.log(true_N)]),
    )


def _scores(predicted: _Predicted, weights_RN: Weights) -> Drawn:
    classes, chunk = predicted.classes, Chunk(weights_RN)
    cells_RX = np.zeros((len(weights_RN), classes * classes))
    cells_RX[:, predicted.cells] = predicted.by_cell.sums(chunk).T
    confusion_RCC = cells_RX.reshape(-1, classes, classes)
    ranked = [_areas(*ranking.counts(chunk)) for ranking in predicted.rankings]
    auroc_R, aupr_R = np.mean(ranked, axis=0)
    # The gap of a bin is linear in the weights, so one product gives it for all resamples. Its absolute value
    # is not: it is taken after the sum.
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
    with np.errstate(invalid="ignore"):  # 0 / 0 where the class has no weight, or all
        # A negative counts the positives above it, and half of those at its own score, as in scikit-learn.
        area_R = (new_negative_VR * (positive_VR - new_positive_VR / 2)).sum(0) / (positives_R * negatives_R)
        average_R = (new_positive_VR * precision_VR).sum(0) / positives_R
    # scikit-learn would call the average precision 1 where a class has every image; `metrics.ranking` calls
    # it undefined, and so must a resample.
    return area_R, np.where(negatives_R == 0, np.nan, average_R)
