"""Linear probes of tasks, on frozen features: logistic regression of each label or grade, ridge for a number.

Features are standardised, as for classes. The penalty is chosen by cross-validation on train, patient by
patient: by log loss, or by squared error. Shapes: N images, D features, T targets, P predictions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.probe.linear_probe import fit_linear_probe
from retfound_dist.evaluate.probe.patient_folds import Groups, folds
from retfound_dist.evaluate.probe.probing import groups_of
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, REGRESSION, TaskFacts
from retfound_dist.evaluate.tasks.task_objective import targets_of

Indices = NDArray[np.int64]


def probe_predictions(
    facts: TaskFacts, train_ND: Features, test_ND: Features, data: LabelledSet, probe: Probe
) -> Floats:
    """(N, P) of the test part by a linear probe that is fitted on train."""
    train = data.parts["train"]
    targets_NT, groups_N = targets_of(train), groups_of(train)
    if facts.kind == MULTILABEL:
        columns = [
            _label_probability(train_ND, targets_NT[:, t], groups_N, test_ND, probe)
            for t in range(len(facts.targets))
        ]
        return np.column_stack(columns)
    if facts.kind == REGRESSION:
        ridge = _fit_ridge(train_ND, targets_NT[:, 0], train, groups_N, probe)
        predicted_N1: Floats = ridge.predict(test_ND)[:, None].astype(np.float64)
        return predicted_N1
    return _class_probabilities(
        train_ND, targets_NT[:, 0].astype(np.int64), groups_N, test_ND, len(facts.grades), probe
    )


def _label_probability(
    train_ND: Features, truth_N: Floats, groups_N: Groups, test_ND: Features, probe: Probe
) -> Floats:
    """(N,) probability of one label, learned from the images whose answer is known."""
    known_N = np.isfinite(truth_N)
    labels_N = truth_N[known_N].astype(np.int64)
    return _class_probabilities(train_ND[known_N], labels_N, groups_N[known_N], test_ND, 2, probe)[:, 1]


def _class_probabilities(
    train_ND: Features, labels_N: Labels, groups_N: Groups, test_ND: Features, classes: int, probe: Probe
) -> Floats:
    model = fit_linear_probe(train_ND, labels_N, groups_N, classes, probe)
    probabilities_NC = np.zeros((len(test_ND), classes))
    probabilities_NC[:, model.classes_] = model.predict_proba(test_ND)
    return probabilities_NC


def _fit_ridge(
    train_ND: Features, numbers_N: Floats, train: SplitPart, groups_N: Groups, probe: Probe
) -> Pipeline:
    """Ridge regression with the penalty 1 / C that predicts other patients best, C of `probe.strengths`."""
    errors, tests = dict.fromkeys(probe.strengths, 0.0), _ridge_folds(train, groups_N, probe)
    if not tests:
        return _ridge(_unjudged_strength(probe)).fit(train_ND, numbers_N)
    for fitted, tested in tests:
        for strength in errors:
            predicted_N = _ridge(strength).fit(train_ND[fitted], numbers_N[fitted]).predict(train_ND[tested])
            errors[strength] += float(((predicted_N - numbers_N[tested]) ** 2).sum())
    best = min(errors, key=lambda strength: (errors[strength], strength))
    return _ridge(best).fit(train_ND, numbers_N)


def penalty_notes(facts: TaskFacts, train: SplitPart, probe: Probe) -> list[str]:
    """A note where no patient is left to choose the penalty of ridge regression by."""
    used = probe.enabled and "linear" in probe.kinds and len(probe.strengths) > 1
    if facts.kind != REGRESSION or not used or _ridge_folds(train, groups_of(train), probe):
        return []
    return [
        "the penalty of the linear probe cannot be chosen, because train has no second patient to test it "
        f"on: the middle one of probe.strengths is used, C = {_unjudged_strength(probe):g}"
    ]


def _ridge_folds(train: SplitPart, groups_N: Groups, probe: Probe) -> list[tuple[Indices, Indices]]:
    return folds(train.labels, groups_N, probe.inner_folds, probe.seed)


def _unjudged_strength(probe: Probe) -> float:
    # The strongest penalty always predicts nearly the mean, and the weakest fits every image exactly.
    return sorted(probe.strengths)[len(probe.strengths) // 2]


def _ridge(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), Ridge(alpha=1 / strength))
