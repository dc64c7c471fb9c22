"""Fits every probe on frozen features, and predicts images that it was not fitted on.

There are two ways to predict, with the same metrics and intervals:

    fit_and_predict(...)  Fits on the train part and predicts another part. `evaluate` predicts the test part.
    cross_validate(...)   Predicts every image of train and val by a fit without its patient. `watch` uses it:
                          it must not use the test part, and more images give narrower intervals.

Shapes: N images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.probe.linear_probe import fit_linear_probe, fit_neighbours
from retfound_dist.evaluate.probe.patient_folds import Groups, folds
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels

LINEAR, NEIGHBOURS = "linear", "knn"
METHODS = (LINEAR, NEIGHBOURS)
METHOD_NAMES = {LINEAR: "linear probe", NEIGHBOURS: "nearest neighbours"}
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
    if method == LINEAR:
        return partial(fit_linear_probe, classes=classes, probe=probe)
    return lambda features_ND, labels_N, _: fit_neighbours(features_ND, labels_N, probe)


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
