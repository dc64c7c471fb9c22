"""Scores frozen features by a linear probe and by nearest neighbours.

There are two ways to predict, with the same metrics and intervals:

    fit_and_predict(...)  Fits on the train part and predicts another part. `evaluate` predicts the test part.
    cross_validate(...)   Predicts every image of train and val by a fit without its patient. `watch` uses it:
                          it must not use the test part, and more images give narrower intervals.

The linear probe is scikit-learn's logistic regression on standardised features. Its penalty is chosen by
cross-validation on the images it is fitted on, by log loss. Neighbours vote by cosine similarity, weighted by
exp(similarity / temperature) (Wu et al., CVPR 2018).

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
METHOD_NAMES = {LINEAR: "linear probe", NEIGHBOURS: "nearest neighbours"}
_MAX_ITERATIONS = 1000
Groups = NDArray[np.int64]
Fit = Callable[[Features, Labels, Groups], Any]


def fit_and_predict(
    features_ND: Features, train: SplitPart, tested_ND: Features, classes: int, probe: Probe
) -> dict[str, Floats]:
    """Probabilities (N, C) of each method for the images of `tested_ND`, fitted on the train part."""
    groups = _groups(train)
    return {
        method: _predict(
            _fitter(method, classes, probe), features_ND, train.labels, groups, tested_ND, classes
        )
        for method in METHODS
    }


def cross_validate(
    features_ND: Features, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> dict[str, Floats]:
    """Probabilities (N, C) of each method. Each image is predicted by the fit on the other folds.

    The folds depend only on labels, groups and `probe.seed`, so they are the same for all checkpoints.
    """
    probabilities = {method: np.zeros((len(labels_N), classes)) for method in METHODS}
    for fitted, tested in folds(labels_N, groups_N, probe.folds, probe.seed):
        for method in METHODS:
            probabilities[method][tested] = _predict(
                _fitter(method, classes, probe),
                features_ND[fitted],
                labels_N[fitted],
                groups_N[fitted],
                features_ND[tested],
                classes,
            )
    return probabilities


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


def probe_scores(
    labels_N: Labels, probabilities_NC: Floats, units_N: Groups, classes: Sequence[str], resamples: int
) -> dict[str, Any]:
    """`legacy`, `macro`, `per_class`, `confusion` and `ci95` of one method."""
    # Seed 0 for every checkpoint, because alarms compare two checkpoints on the same resamples.
    resampled = bootstrap.scores(labels_N, probabilities_NC, bootstrap.resample(units_N, resamples, 0))
    return {
        **metrics.evaluate(labels_N, probabilities_NC, classes),
        "ci95": bootstrap.intervals(resampled),
    }


def _groups(part: SplitPart) -> Groups:
    return bootstrap.resampling_units(part.patients, part.keys, part.units)[1]


def _fitter(method: str, classes: int, probe: Probe) -> Fit:
    return (
        partial(_fit_linear, classes=classes, probe=probe)
        if method == LINEAR
        else partial(_fit_neighbours, probe)
    )


def _predict(
    fit: Fit, features_ND: Features, labels_N: Labels, groups_N: Groups, tested_ND: Features, classes: int
) -> Floats:
    """Probabilities of all classes; 0 for a class without an image in the fit."""
    if len(np.unique(labels_N)) == 1:
        return np.tile(np.eye(classes)[labels_N[0]], (len(tested_ND), 1))
    model = fit(features_ND, labels_N, groups_N)
    probabilities_NC = np.zeros((len(tested_ND), classes))
    probabilities_NC[:, model.classes_] = model.predict_proba(tested_ND)
    # The probabilities of scikit-learn sum to 1 in single precision only.
    probabilities_NC /= probabilities_NC.sum(1, keepdims=True)
    return probabilities_NC


def _fit_linear(
    features_ND: Features, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> Pipeline:
    losses = dict.fromkeys(probe.strengths, 0.0)
    if len(losses) > 1:
        # Folds of patients, because slices of one patient on both sides would favour the weakest penalty.
        for fitted, tested in folds(labels_N, groups_N, probe.inner_folds, probe.seed):
            # scikit-learn cannot fit a single class.
            if len(np.unique(labels_N[fitted])) < 2:
                continue
            for strength in losses:
                model = _linear(strength).fit(features_ND[fitted], labels_N[fitted])
                probabilities_NC = np.zeros((len(tested), classes))
                probabilities_NC[:, model.classes_] = model.predict_proba(features_ND[tested])
                losses[strength] += metrics.mean_log_loss(labels_N[tested], probabilities_NC) * len(tested)
    # Among equal losses the smaller C, which is the stronger penalty.
    best = min(losses, key=lambda strength: (losses[strength], strength))
    return _linear(best).fit(features_ND, labels_N)


def _linear(strength: float) -> Pipeline:
    logistic = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), logistic)


def _fit_neighbours(
    probe: Probe, features_ND: Features, labels_N: Labels, groups_N: Groups
) -> KNeighborsClassifier:
    def weight(distances: Floats) -> Floats:
        """exp(cosine similarity / temperature), relative to the nearest neighbour to avoid an overflow."""
        nearest = distances.min(axis=1, keepdims=True)
        weights: Floats = np.exp((nearest - distances) / probe.temperature)
        return weights

    neighbours = min(probe.neighbours, len(features_ND))
    return KNeighborsClassifier(neighbours, weights=weight, metric="cosine").fit(features_ND, labels_N)
