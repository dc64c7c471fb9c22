"""Counts true and false positives of two-class questions at given thresholds, in every resample.

An image is called positive where its probability is at least the threshold. The images of a question are
divided into cells by truth and by the thresholds they reach. A sum of weights for each cell and resample
then gives the counts at all thresholds (`ranking_sums`), so that half a million images need no more memory
than the bootstrap.

Shapes: N images, R resamples, T thresholds, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.clinical.questions import Question
from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.ranking_sums import Chunk, group_by_number, rank

# A share such as 1 - 0.95 of 20 images is not exactly 1 in floating point.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cuts:
    """A question with the thresholds at which it is counted, and the levels at which its ROC curve is
    read."""

    question: Question
    thresholds_T: Floats
    """Rising."""
    specificities: tuple[float, ...] = ()
    sensitivities: tuple[float, ...] = ()


@dataclass(frozen=True)
class CutCounts:
    """Counts of one question in each of R resamples."""

    true_TR: Floats
    """True positives at each threshold."""
    false_TR: Floats
    """False positives at each threshold."""
    positives_R: Floats
    negatives_R: Floats
    roc_sensitivity_LR: Floats
    """For each of `Cuts.specificities`: the highest sensitivity with at least this specificity, on these
    images."""
    roc_specificity_LR: Floats
    """For each of `Cuts.sensitivities`: the highest specificity with at least this sensitivity."""


def count(images: ScoredImages, cuts: Sequence[Cuts]) -> list[CutCounts]:
    """The counts of each question, once (R = 1), with the mean probabilities of all seeds."""
    counts = [_empty(each, 1) for each in cuts]
    once_1N = np.ones((1, len(images.labels_N)), np.uint8)
    for each, into in zip(_prepare(images, images.calibrated_NM, cuts), counts, strict=True):
        each.add(Chunk(once_1N), into, np.zeros(1, np.int64))
    return counts


def count_resamples(
    images: ScoredImages, cuts: Sequence[Cuts], on_progress: ProgressCallback | None = None
) -> list[CutCounts]:
    """The counts of each question in every resample of images and seeds."""
    counts, done = [_empty(each, images.resamples) for each in cuts], 0
    for draw_S, drawn_R in bootstrap.distinct_seed_draws(len(images.probabilities_SNC), images.resamples):
        probabilities_NM = images.at_temperature(images.combine(images.probabilities_SNC[draw_S]))
        prepared = _prepare(images, probabilities_NM, cuts)
        for rows in bootstrap.chunks(len(drawn_R), len(images.labels_N)):
            chunk = Chunk(images.weights_RN[drawn_R[rows]])
            for each, into in zip(prepared, counts, strict=True):
                each.add(chunk, into, drawn_R[rows])
            done += rows.stop - rows.start
            if on_progress:
                on_progress(done, images.resamples)
    return counts


def _empty(cuts: Cuts, resamples: int) -> CutCounts:
    rows = len(cuts.thresholds_T)
    levels = len(cuts.specificities), len(cuts.sensitivities)
    return CutCounts(
        np.empty((rows, resamples)),
        np.empty((rows, resamples)),
        np.empty(resamples),
        np.empty(resamples),
        *(np.empty((each, resamples)) for each in levels),
    )


class _PreparedQuestion:
    """Everything about a question that is the same in every resample."""

    def __init__(self, cuts: Cuts, truth_N: NDArray[np.bool_], score_N: Floats) -> None:
        self.cuts = cuts
        # How many thresholds an image reaches: it is positive at those below this place.
        reached_N = np.searchsorted(cuts.thresholds_T, score_N, side="right")
        self.cells, self.by_cell = group_by_number(truth_N * (len(cuts.thresholds_T) + 1) + reached_N)
        self.ranking = rank(truth_N, score_N)

    def add(self, chunk: Chunk, into: CutCounts, resamples_R: NDArray[np.int64]) -> None:
        """Write the counts of a chunk's resamples to their places."""
        thresholds = len(self.cuts.thresholds_T)
        sums_XR = np.zeros((2 * (thresholds + 1), len(resamples_R)))
        sums_XR[self.cells] = self.by_cell.sums(chunk)
        # Images that reach at least j + 1 thresholds are positive at threshold j.
        false_TR, true_TR = np.cumsum(sums_XR.reshape(2, thresholds + 1, -1)[:, ::-1], axis=1)[:, ::-1]
        into.true_TR[:, resamples_R], into.false_TR[:, resamples_R] = true_TR[1:], false_TR[1:]
        into.positives_R[resamples_R], into.negatives_R[resamples_R] = true_TR[0], false_TR[0]
        self._read_roc(chunk, into, resamples_R)

    def _read_roc(self, chunk: Chunk, into: CutCounts, resamples_R: NDArray[np.int64]) -> None:
        """Read the test ROC of some resamples at the fixed rates into columns `resamples_R` of `into`.

        For a fixed specificity that is the highest sensitivity that reaches it, and the other way round.
        """
        if not self.cuts.specificities and not self.cuts.sensitivities:
            return
        positive_VR, negative_VR = self.ranking.counts(chunk)
        positives_R, negatives_R = positive_VR[-1], negative_VR[-1]
        with np.errstate(
            invalid="ignore", divide="ignore"
        ):  # 0 / 0 in resamples without positives or negatives
            for row, level in enumerate(self.cuts.specificities):
                allowed_VR = negative_VR <= (1 - level) * negatives_R + _ROUNDING
                best_R = np.where(allowed_VR, positive_VR, 0).max(0)
                into.roc_sensitivity_LR[row, resamples_R] = np.where(
                    negatives_R > 0, best_R / positives_R, np.nan
                )
            for row, level in enumerate(self.cuts.sensitivities):
                allowed_VR = positive_VR >= level * positives_R - _ROUNDING
                fewest_R = np.where(allowed_VR, negative_VR, np.inf).min(0)
                into.roc_specificity_LR[row, resamples_R] = np.where(
                    positives_R > 0, 1 - fewest_R / negatives_R, np.nan
                )


def _prepare(images: ScoredImages, probabilities_NM: Floats, cuts: Sequence[Cuts]) -> list[_PreparedQuestion]:
    return [
        _PreparedQuestion(each, each.question.truth(images.labels_N), each.question.score(probabilities_NM))
        for each in cuts
    ]
