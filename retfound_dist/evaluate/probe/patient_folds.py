"""Folds of a cross-validation that never divide a patient. N images."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from retfound_dist.evaluate.scores.metrics import Labels

Groups = NDArray[np.int64]
"""The patient of each image as a number (N,); of images without one the volume, folder or image."""


def folds(
    labels_N: Labels, groups_N: Groups, count: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices (fitted, tested) of each fold. Folds are stratified; no group is in both.

    There are fewer folds than `count` where there are fewer groups, or fewer images of every class. The list
    is empty where fewer than two are left.
    """
    count = min(count, len(np.unique(groups_N)), int(np.bincount(labels_N).max()))
    if count < 2:
        return []
    with warnings.catch_warnings():
        # A class with fewer images than folds is missing in some of them. Its probability is 0 there.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        return list(split.split(np.zeros(len(labels_N)), labels_N, groups_N))
