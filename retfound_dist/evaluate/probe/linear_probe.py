"""Probes of one vector for each image: a linear classifier, and votes of the nearest neighbours.

The linear probe is scikit-learn's logistic regression on standardised features. Its penalty is chosen by
cross-validation on the images it is fitted on, by log loss. Neighbours vote by cosine similarity, weighted by
exp(similarity / temperature) (Wu et al., CVPR 2018).

Shapes: N images, D features.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.probe.patient_folds import Groups, folds
from retfound_dist.evaluate.scores import metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels

_MAX_ITERATIONS = 1000


def fit_linear_probe(
    features_ND: Features, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> Pipeline:
    """The classifier on (N, D) features, with the penalty that predicts other patients best."""
    losses, is_judged = dict.fromkeys(probe.strengths, 0.0), False
    if len(losses) > 1:
        # Folds of patients, because slices of one patient on both sides would favour the weakest penalty.
        for fitted, tested in folds(labels_N, groups_N, probe.inner_folds, probe.seed):
            # scikit-learn cannot fit a single class. Images of classes without a fitted one judge no penalty.
            known_N = np.isin(labels_N[tested], labels_N[fitted])
            if len(np.unique(labels_N[fitted])) < 2 or not known_N.any():
                continue
            is_judged = True
            for strength in losses:
                model = _linear(strength).fit(features_ND[fitted], labels_N[fitted])
                probabilities_NC = np.zeros((len(tested), classes))
                probabilities_NC[:, model.classes_] = model.predict_proba(features_ND[tested])
                losses[strength] += metrics.mean_log_loss(labels_N[tested], probabilities_NC) * len(tested)
    # With one patient a class there is nothing to judge by. On OCTDL the strongest penalty then predicts by
    # chance (balanced accuracy 0.15 of seven classes), and the weakest predicts best (0.24).
    # Among equal losses the smaller C, which is the stronger penalty.
    best = min(losses, key=lambda strength: (losses[strength], strength)) if is_judged else max(losses)
    return _linear(best).fit(features_ND, labels_N)


def _linear(strength: float) -> Pipeline:
    logistic = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), logistic)


def fit_neighbours(features_ND: Features, labels_N: Labels, probe: Probe) -> KNeighborsClassifier:
    """The classifier whose neighbours are these (N, D) features."""

    def weight(distances: Floats) -> Floats:
        """exp(cosine similarity / temperature), relative to the nearest neighbour to avoid an overflow."""
        nearest = distances.min(axis=1, keepdims=True)
        weights: Floats = np.exp((nearest - distances) / probe.temperature)
        return weights

    neighbours = min(probe.neighbours, len(features_ND))
    return KNeighborsClassifier(neighbours, weights=weight, metric="cosine").fit(features_ND, labels_N)
