"""Sums weights over segments of a ranking, for many weightings at once: the basis of ROC and precision.

In the ranking of a class, its ROC curve bends only where the score of a positive image begins or ends.
Between them there are only negatives, and the curve is a straight line. So the sums over these segments
define the curve. A sum is one row of a sparse matrix times the weights. Each image is positive in one class
only, so 50 classes have some 2 N bends together and not 50 N.

Shapes: N images, R weightings, K distinct scores of positives, V = 2 K + 1 bends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from retfound_dist.evaluate.scores.metrics import Floats

Indices = NDArray[np.int64]
Weights = NDArray[Any]
"""(R, N): how often each image counts; integers of the smallest type that holds them, or floats."""
# Sums of integers must be exact, so that intervals do not depend on the order of the images. float32 is exact
# up to 2^24.
_EXACT_TYPES = ((np.uint16, 2**16 - 1), (np.float32, 2**24))
"""Types, and the largest integer that each adds exactly; the fastest first."""


class Chunk:
    """Some weightings, transposed so that the weights of one image are adjacent; cached for each type."""

    def __init__(self, weights_RN: Weights) -> None:
        self._weights_RN = weights_RN
        self._are_integers = weights_RN.dtype.kind in "bui"
        self._max_weight = int(weights_RN.max(initial=0)) if self._are_integers else 0
        self._transposed: dict[Any, Weights] = {}

    def transposed_for_sums(self, images: int) -> Weights:
        """(N, R) in the fastest type that sums this many images exactly; floats stay float64."""
        fitting = (
            kind for kind, limit in _EXACT_TYPES if self._are_integers and self._max_weight * images <= limit
        )
        kind: Any = next(fitting, np.float64)
        if kind not in self._transposed:
            self._transposed[kind] = np.ascontiguousarray(self._weights_RN.T, dtype=kind)
        return self._transposed[kind]


@dataclass(frozen=True)
class Segments:
    """Images in an order, divided into segments."""

    order: Indices
    """Indices of images."""
    ends: Indices
    """Where each segment begins in `order`, and where the last one ends."""

    def sums(self, chunk: Chunk) -> Floats:
        """(segments, R): the sum of the weights of each segment."""
        weights_NR = chunk.transposed_for_sums(int(np.diff(self.ends).max(initial=0)))
        ones = np.ones(len(self.order), dtype=weights_NR.dtype)
        summing = csr_array((ones, self.order, self.ends), shape=(len(self.ends) - 1, len(weights_NR)))
        return np.asarray(summing @ weights_NR, dtype=np.float64)


def group_by_number(numbers_N: Indices) -> tuple[Indices, Segments]:
    """The D distinct numbers in rising order (D,), and D segments: the images that have each of them."""
    order = np.argsort(numbers_N, kind="stable")
    distinct, begins = np.unique(numbers_N[order], return_index=True)
    return distinct, Segments(order, np.append(begins, len(order)))


@dataclass(frozen=True)
class Ranking:
    """The images of a class by falling score, divided at the bends of its curves."""

    positives: Segments
    negatives: Segments

    def by_unit(self, units_N: Indices) -> Ranking:
        """The same for weights of units, where `units_N` is the unit of each image.

        A segment then names a unit once for each of its images in it.
        """
        return Ranking(*(Segments(units_N[s.order], s.ends) for s in (self.positives, self.negatives)))

    def at_most(self, scores: int) -> Ranking:
        """The same, divided at no more than `scores` of the positives' distinct scores: enough for a figure.

        They are evenly spread over the ranking.
        """
        distinct_scores = len(self.positives.ends) // 2 - 1
        if distinct_scores <= scores:
            return self
        chosen_scores = np.linspace(0, distinct_scores - 1, scores).round().astype(np.int64)

        def divide(segments: Segments) -> Segments:
            first, last = segments.ends[:1], segments.ends[-1:]
            begins_and_ends = segments.ends[1:-1].reshape(-1, 2)[chosen_scores].ravel()
            return Segments(segments.order, np.concatenate([first, begins_and_ends, last]))

        return Ranking(divide(self.positives), divide(self.negatives))

    def counts(self, chunk: Chunk) -> tuple[Floats, Floats]:
        """True and false positives at each bend, both (V, R); the last bend has all of them."""
        return np.cumsum(self.positives.sums(chunk), axis=0), np.cumsum(self.negatives.sums(chunk), axis=0)


def rank(truth_N: NDArray[np.bool_], score_N: Floats) -> Ranking:
    """Order the images of a class by falling score, divided where the ROC curve can bend.

    It bends where a score of positives begins and where it ends; images with equal scores are in one segment.
    `truth_N`: which images are positive.
    """
    positives_P, negatives_Q = np.flatnonzero(truth_N), np.flatnonzero(~truth_N)
    # The sort need not be stable: the weights of images with equal scores are summed.
    positives_P = positives_P[np.argsort(-score_N[positives_P])]
    negatives_Q = negatives_Q[np.argsort(-score_N[negatives_Q])]
    falling_P = -score_N[positives_P]
    scores_K = falling_P[np.append(True, falling_P[1:] != falling_P[:-1])[: len(falling_P)]]

    def split_at_scores(order: Indices) -> Segments:
        falling = -score_N[order]
        begins, ends = (np.searchsorted(falling, scores_K, side) for side in ("left", "right"))
        return Segments(order, np.concatenate([[0], np.stack([begins, ends], axis=1).ravel(), [len(order)]]))

    return Ranking(split_at_scores(positives_P), split_at_scores(negatives_Q))
