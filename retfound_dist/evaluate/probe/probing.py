"""Fits every probe on frozen features, and predicts images that it was not fitted on.

There are two ways to predict, with the same metrics and intervals:

    fit_and_predict(...)  Fits on the train part and predicts another part. `evaluate` predicts the test part.
    cross_validate(...)   Predicts every image of train and val by a fit without its patient. `watch` uses it:
                          it must not use the test part, and more images give narrower intervals.

Shapes: N images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.probe.attentive_probe import fit_attentive_probe, images_to_fit
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.probe.linear_probe import fit_linear_probe, fit_neighbours
from retfound_dist.evaluate.probe.patch_tokens import ReadTokens
from retfound_dist.evaluate.probe.patient_folds import Groups, folds
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels

LINEAR, NEIGHBOURS, ATTENTIVE = "linear", "knn", "attentive"
METHODS = (LINEAR, NEIGHBOURS, ATTENTIVE)
_ATTENTIVE_SETTINGS = ("kinds", "attentive_images")
COMPARED_SCORE = "aupr"
"""The macro score by which the attentive probe is compared with the linear one: that of `watch`'s alarms."""


def fit_and_predict(
    features_ND: Features,
    train: SplitPart,
    tested_ND: Features,
    classes: int,
    probe: Probe,
    read_tokens: ReadTokens | None = None,
) -> dict[str, Floats]:
    """Probabilities (N, C) of each method for the images of `tested_ND`, fitted on the train part.

    `read_tokens` numbers the images of train first, then the tested ones. Without it there is no attentive
    probe.
    """
    fitted = np.arange(len(features_ND))
    images = _Images(
        np.concatenate([features_ND, tested_ND]), train.labels, groups_of(train), classes, probe, read_tokens
    )
    return images.predict(fitted, len(fitted) + np.arange(len(tested_ND)))


def cross_validate(
    features_ND: Features,
    labels_N: Labels,
    groups_N: Groups,
    classes: int,
    probe: Probe,
    read_tokens: ReadTokens | None = None,
) -> dict[str, Floats]:
    """Probabilities (N, C) of each method. Each image is predicted by the fit on the other folds.

    The folds depend only on labels, groups and `probe.seed`, so they are the same for all checkpoints.
    Without `read_tokens` there is no attentive probe.
    """
    images = _Images(features_ND, labels_N, groups_N, classes, probe, read_tokens)
    probabilities = {method: np.zeros((len(labels_N), classes)) for method in images.methods}
    for fitted, tested in folds(labels_N, groups_N, probe.folds, probe.seed):
        for method, p_NC in images.predict(fitted, tested).items():
            probabilities[method][tested] = p_NC
    return probabilities


def later_settings(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of `Probe` that say nothing about a result with these stored settings.

    Before there was an attentive probe, every result had the other two.
    """
    return () if "kinds" in stored else _ATTENTIVE_SETTINGS


def has_settings(stored: Mapping[str, Any], probe: Probe) -> bool:
    """Whether a result with these stored settings is one of `probe`; missing settings count as defaults."""
    old, new = {**to_dict(Probe()), **stored}, to_dict(probe)
    compared = (old.keys() | new.keys()) - {*later_settings(stored)}
    return all(old.get(key) == new.get(key) for key in compared)


def score_probes(
    labels_N: Labels,
    probabilities: Mapping[str, Floats],
    units_N: Groups,
    classes: Sequence[str],
    resamples: int,
    note: str = "",
) -> dict[str, dict[str, Any]]:
    """`probe_scores` of each method; `attentive` also has `minus_linear`, with its paired interval.

    `note`: what to tell of the attentive probe beside its scores.
    """
    scored = {
        method: probe_scores(labels_N, p_NC, units_N, classes, resamples)
        for method, p_NC in probabilities.items()
    }
    if LINEAR in scored and ATTENTIVE in scored:
        scored[ATTENTIVE]["minus_linear"] = _minus_linear(labels_N, probabilities, units_N, scored, resamples)
    if ATTENTIVE in scored and note:
        scored[ATTENTIVE]["note"] = note
    return scored


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


def groups_of(part: SplitPart) -> Groups:
    """The patient of each image as a number; of images without one the volume, folder or image."""
    return bootstrap.resampling_units(part.patients, part.keys, part.units)[1]


def _minus_linear(
    labels_N: Labels,
    probabilities: Mapping[str, Floats],
    units_N: Groups,
    scored: Mapping[str, Mapping[str, Any]],
    resamples: int,
) -> dict[str, Any]:
    """The score of the attentive probe minus that of the linear one, on the same resamples."""
    values = [scored[method]["macro"][COMPARED_SCORE] for method in (ATTENTIVE, LINEAR)]
    if None in values:
        return {"metric": COMPARED_SCORE, "difference": None, "ci95": None, "real": False}
    weights_RN = bootstrap.resample(units_N, resamples, 0)
    attentive_R, linear_R = (
        bootstrap.scores(labels_N, probabilities[method], weights_RN)["macro"][COMPARED_SCORE]
        for method in (ATTENTIVE, LINEAR)
    )
    return {
        "metric": COMPARED_SCORE,
        "difference": values[0] - values[1],
        **bootstrap.paired_difference(attentive_R, linear_R),
    }


@dataclass(frozen=True)
class _Images:
    """Images that probes are fitted on and predict, by number. The fitted ones have labels and groups."""

    features_ND: Features
    labels_N: Labels
    groups_N: Groups
    classes: int
    probe: Probe
    read_tokens: ReadTokens | None

    @property
    def methods(self) -> list[str]:
        """The methods of `probe.kinds` that can be fitted, in the order of `METHODS`."""
        possible_methods = METHODS if self.read_tokens else (LINEAR, NEIGHBOURS)
        return [method for method in possible_methods if method in self.probe.kinds]

    def predict(self, fitted: NDArray[np.int64], tested: NDArray[np.int64]) -> dict[str, Floats]:
        """Probabilities (N, C) of the tested images by each method."""
        return {method: self._predict(method, fitted, tested) for method in self.methods}

    def _predict(self, method: str, fitted: NDArray[np.int64], tested: NDArray[np.int64]) -> Floats:
        """Probabilities of all classes; 0 for a class without an image in the fit."""
        if method == ATTENTIVE:
            fitted = np.intersect1d(fitted, images_to_fit(self.labels_N, self.groups_N, self.probe))
        labels_N = self.labels_N[fitted]
        if len(np.unique(labels_N)) == 1:
            return np.tile(np.eye(self.classes)[labels_N[0]], (len(tested), 1))
        model = self._fit(method, fitted, labels_N)
        probabilities_NC = np.zeros((len(tested), self.classes))
        probabilities_NC[:, model.classes_] = model.predict_proba(
            tested if method == ATTENTIVE else self.features_ND[tested]
        )
        # The probabilities of scikit-learn sum to 1 in single precision only.
        probabilities_NC /= probabilities_NC.sum(1, keepdims=True)
        return probabilities_NC

    def _fit(self, method: str, fitted: NDArray[np.int64], labels_N: Labels) -> Any:
        groups_N, features_ND = self.groups_N[fitted], self.features_ND[fitted]
        if method == NEIGHBOURS:
            return fit_neighbours(features_ND, labels_N, self.probe)
        if method == LINEAR:
            return fit_linear_probe(features_ND, labels_N, groups_N, self.classes, self.probe)
        assert self.read_tokens is not None
        return fit_attentive_probe(self.read_tokens, fitted, labels_N, groups_N, self.classes, self.probe)
