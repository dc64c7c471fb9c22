"""Sums weights over stretches of a ranking, for many weightings at once: ROC and precision follow.

Going down a class's ranking, its curve bends only where a score that a positive image has begins or ends;
between them only negatives come and it is a straight line. So the sums over those stretches define it, and
a stretch's sum is one row of a sparse matrix times the weights. Of 50 classes each image is positive in one
only: together they bend some 2 N times, not 50 N times.

Shapes: N images, R weightings, K distinct scores of positives, V = 2 K + 1 bends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from retfound_dist.evaluate.scores.metrics import Floats

Places = NDArray[np.int64]
Weights = NDArray[Any]
"""(R, N): how often each image counts; whole numbers in as few bytes as they need, or floats."""
# A sum of whole numbers has to be exact: then it does not depend on the order of the images, and intervals
# do not either. float32 holds whole numbers up to 2^24.
_EXACT = ((np.uint16, 2**16 - 1), (np.float32, 2**24))
"""Types that add whole numbers without rounding up to so much, the fastest first."""


class Chunk:
    """Some weightings, transposed so that one image's weights lie together; kept in each type asked for."""

    def __init__(self, weights_RN: Weights) -> None:
        self._weights_RN = weights_RN
        self._whole = weights_RN.dtype.kind in "bui"
        self._most = int(weights_RN.max(initial=0)) if self._whole else 0
        self._turned: dict[Any, Weights] = {}

    def for_sums_of(self, images: int) -> Weights:
        """(N, R) in the fastest type whose sum over so many images stays exact; floats stay float64."""
        fitting = (kind for kind, limit in _EXACT if self._whole and self._most * images <= limit)
        kind: Any = next(fitting, np.float64)
        if kind not in self._turned:
            self._turned[kind] = np.ascontiguousarray(self._weights_RN.T, dtype=kind)
        return self._turned[kind]


@dataclass(frozen=True)
class Stretches:
    """Images in an order, cut into stretches."""

    order: Places
    """Places of images."""
    ends: Places
    """Where in `order` each stretch begins, and the last one ends."""

    def sums(self, chunk: Chunk) -> Floats:
        """(stretches, R): the weight of each."""
        weights_NR = chunk.for_sums_of(int(np.diff(self.ends).max(initial=0)))
        ones = np.ones(len(self.order), dtype=weights_NR.dtype)
        summing = csr_array((ones, self.order, self.ends), shape=(len(self.ends) - 1, len(weights_NR)))
        return np.asarray(summing @ weights_NR, dtype=np.float64)


def group_by_number(numbers_N: Places) -> tuple[Places, Stretches]:
    """The distinct numbers, rising, and the images that have each."""
    order = np.argsort(numbers_N, kind="stable")
    distinct, begins = np.unique(numbers_N[order], return_index=True)
    return distinct, Stretches(order, np.append(begins, len(order)))


@dataclass(frozen=True)
class Ranking:
    """One class's images by falling score: positives and negatives up to each bend of its curves."""

    positives: Stretches
    negatives: Stretches

    def counts(self, chunk: Chunk) -> tuple[Floats, Floats]:
        """(V, R) both: true and false positives at each bend; the last one has them all."""
        return np.cumsum(self.positives.sums(chunk), axis=0), np.cumsum(self.negatives.sums(chunk), axis=0)


def rank(truth_N: NDArray[np.bool_], score_N: Floats, most: int | None = None) -> Ranking:
    """A class's ranking; ties are one place in it.

    `most`: use at most this many scores of positives, evenly spread; figures need no more.
    """
    positives_P, negatives_Q = np.flatnonzero(truth_N), np.flatnonzero(~truth_N)
    # No stable sort is needed: images of one score end in one stretch, whose weights are added up.
    positives_P = positives_P[np.argsort(-score_N[positives_P])]
    negatives_Q = negatives_Q[np.argsort(-score_N[negatives_Q])]
    scores_K = np.unique(-score_N[positives_P])
    if most is not None and len(scores_K) > most:
        scores_K = scores_K[np.linspace(0, len(scores_K) - 1, most).round().astype(np.int64)]

    def cut(order: Places) -> Stretches:
        falling = -score_N[order]
        begins, ends = (np.searchsorted(falling, scores_K, side) for side in ("left", "right"))
        return Stretches(order, np.concatenate([[0], np.stack([begins, ends], axis=1).ravel(), [len(order)]]))

    return Ranking(cut(positives_P), cut(negatives_Q))
