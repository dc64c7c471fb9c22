"""Scores frozen features by a linear probe and by nearest neighbours.

Two ways to score, with the same probabilities, metrics and intervals:

    held_out(...)         fitted on the train part, scored on another part (evaluate: the test part)
    cross_validated(...)  every image of train and val predicted by a fit that did not see its patient
                          (watch: the test part is never looked at, and more images mean narrower intervals)

The linear probe is scikit-learn's logistic regression on standardised features, its penalty chosen by
cross-validation among the images it is fitted on, by log loss. Neighbours vote by cosine similarity,
weighted by exp(similarity / temperature) (Wu et al., CVPR 2018).

Shapes: N images, D features, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels

LINEAR, NEIGHBOURS = "linear", "knn"
METHODS = (LINEAR, NEIGHBOURS)
WORDS = {LINEAR: "linear probe", NEIGHBOURS: "nearest neighbours"}
_ITERATIONS = 1000
Groups = NDArray[np.int64]
Fit = Callable[[Features, Labels, Groups], Any]


def held_out(
    rows_ND: Features, train: SplitPart, tested_ND: Features, classes: int, probe: Probe
) -> dict[str, Floats]:
    """Probabilities (N, C) of each method for images that were not fitted on."""
    groups = _groups(train)
    return {
        method: _predict(_fitter(method, classes, probe), rows_ND, train.labels, groups, tested_ND, classes)
        for method in METHODS
    }


def cross_validated(
    rows_ND: Features, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> dict[str, Floats]:
    """Probabilities (N, C) of each method, every image's by the fit on the other folds.

    The folds follow from labels, groups and `probe.seed` alone, so they are the same for all checkpoints.
    """
    probabilities = {method: np.zeros((len(labels_N), classes)) for method in METHODS}
    for fitted, tested in folds(labels_N, groups_N, probe.folds, probe.seed):
        for method in METHODS:
            probabilities[method][tested] = _predict(
                _fitter(method, classes, probe),
                rows_ND[fitted],
                labels_N[fitted],
                groups_N[fitted],
                rows_ND[tested],
                classes,
            )
    return probabilities


def folds(
    labels_N: Labels, groups_N: Groups, count: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(fitted, tested) images of each fold: stratified, no group in both.

    Fewer than `count` where there are fewer groups, or fewer images of every class; none below two.
    """
    count = min(count, len(np.unique(groups_N)), int(np.bincount(labels_N).max()))
    if count < 2:
        return []
    with warnings.catch_warnings():
        # a class with fewer images than folds is absent from some: its probability is 0 there
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        split = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        return list(split.split(np.zeros(len(labels_N)), labels_N, groups_N))


def probe_scores(
    labels_N: Labels, probabilities_NC: Floats, units_N: Groups, classes: Sequence[str], resamples: int
) -> dict[str, Any]:
    """`legacy`, `macro`, `per_class`, `confusion` and `ci95` of one method."""
    # Seed 0 for every checkpoint: alarms compare two of them on the same resamples.
    drawn = bootstrap.scores(labels_N, probabilities_NC, bootstrap.resample(units_N, resamples, 0))
    return {
        **metrics.evaluate(labels_N, probabilities_NC, classes),
        "ci95": bootstrap.intervals(drawn),
    }


def _groups(part: SplitPart) -> Groups:
    return bootstrap.units_of(part.patients, part.keys, part.units)[1]


def _fitter(method: str, classes: int, probe: Probe) -> Fit:
    return partial(_fit_linear, classes=classes, probe=probe) if method == LINEAR else partial(_vote, probe)


def _predict(
    fit: Fit, rows_ND: Features, labels_N: Labels, groups_N: Groups, tested_ND: Features, classes: int
) -> Floats:
    """Probabilities over all classes; 0 for one that was not fitted on."""
    if len(np.unique(labels_N)) == 1:
        return np.tile(np.eye(classes)[labels_N[0]], (len(tested_ND), 1))
    model = fit(rows_ND, labels_N, groups_N)
    probabilities_NC = np.zeros((len(tested_ND), classes))
    probabilities_NC[:, model.classes_] = model.predict_proba(tested_ND)
    # scikit-learn's probabilities sum to 1 within single precision only.
    probabilities_NC /= probabilities_NC.sum(1, keepdims=True)
    return probabilities_NC


def _fit_linear(
    rows_ND: Features, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> Pipeline:
    losses = dict.fromkeys(probe.strengths, 0.0)
    if len(losses) > 1:
        # Folds of patients here too: slices of one patient on both sides would favour the weakest penalty.
        for fitted, tested in folds(labels_N, groups_N, probe.inner_folds, probe.seed):
            # scikit-learn refuses to fit one class.
            if len(np.unique(labels_N[fitted])) < 2:
                continue
            for strength in losses:
                model = _linear(strength).fit(rows_ND[fitted], labels_N[fitted])
                guess = np.zeros((len(tested), classes))
                guess[:, model.classes_] = model.predict_proba(rows_ND[tested])
                losses[strength] += metrics.mean_log_loss(labels_N[tested], guess) * len(tested)
    # Of equal losses the smaller C, which is the stronger penalty.
    best = min(losses, key=lambda strength: (losses[strength], strength))
    return _linear(best).fit(rows_ND, labels_N)


def _linear(strength: float) -> Pipeline:
    logistic = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    return make_pipeline(StandardScaler(), logistic)


def _vote(probe: Probe, rows_ND: Features, labels_N: Labels, groups_N: Groups) -> KNeighborsClassifier:
    def weight(distances: Floats) -> Floats:
        """exp(cosine similarity / temperature), relative to the nearest so that nothing overflows."""
        nearest = distances.min(axis=1, keepdims=True)
        weights: Floats = np.exp((nearest - distances) / probe.temperature)
        return weights

    neighbours = min(probe.neighbours, len(rows_ND))
    return KNeighborsClassifier(neighbours, weights=weight, metric="cosine").fit(rows_ND, labels_N)
