from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.probe import probing
from tests.evaluate.probe.test_probing import part


def test_neighbours_votes_are_those_worked_out_by_hand() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    tested = np.array([[2, 0]], np.float32)
    found = probing.fit_and_predict(
        rows, part(np.array([0, 1, 2])), tested, 3, Probe(temperature=0.5, neighbours=3)
    )
    votes = np.exp(np.array([1, 0, np.sqrt(0.5)]) / 0.5)
    np.testing.assert_allclose(found["knn"][0], votes / votes.sum(), rtol=1e-5)


def test_the_penalty_is_the_one_with_the_least_log_loss_among_the_fitted_images() -> None:
    """Overlapping classes and three images a patient: neither the weakest nor the strongest penalty is the best."""
    rng = np.random.default_rng(5)
    labels, groups = np.repeat(rng.integers(0, 3, 30), 3), np.repeat(np.arange(30), 3)
    rows = (np.eye(12)[labels] + 1.2 * rng.normal(size=(90, 12))).astype(np.float32)
    tested = rng.normal(size=(7, 12)).astype(np.float32)
    setting = Probe(strengths=(1e-5, 1e-2, 1e2), inner_folds=4)
    losses = {}
    for strength in setting.strengths:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        losses[strength] = 0.0
        for fitted, held in StratifiedGroupKFold(4, shuffle=True, random_state=0).split(rows, labels, groups):
            p = model.fit(rows[fitted], labels[fitted]).predict_proba(rows[held])
            losses[strength] -= np.log(p[np.arange(len(held)), labels[held]]).sum()
    assert min(losses, key=losses.__getitem__) == 1e-2
    best = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=1000)).fit(rows, labels)
    found = probing.fit_and_predict(rows, part(labels, [f"p{g}" for g in groups]), tested, 3, setting)[
        "linear"
    ]
    np.testing.assert_allclose(found, best.predict_proba(tested), rtol=1e-5)
    alone = probing.fit_and_predict(rows, part(labels), tested, 3, Probe(strengths=(1e2,)))["linear"]
    other = make_pipeline(StandardScaler(), LogisticRegression(C=1e2, max_iter=1000)).fit(rows, labels)
    np.testing.assert_allclose(alone, other.predict_proba(tested), rtol=1e-4, atol=1e-7)


def test_with_one_patient_a_class_the_penalty_is_the_weakest_because_no_fold_can_judge_it() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 5)
    rows = (np.eye(6)[labels] + 0.3 * rng.normal(size=(20, 6))).astype(np.float32)
    tested = np.eye(6, dtype=np.float32)[:4]
    setting = Probe(strengths=(1e-5, 1e-2, 1.0), kinds=("linear",))
    patients = [f"p{label}" for label in labels]
    predicted = probing.fit_and_predict(rows, part(labels, patients), tested, 4, setting)["linear"]
    weakest = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(rows, labels)
    np.testing.assert_allclose(predicted, weakest.predict_proba(tested), rtol=1e-5)
    # A second patient of each class can judge.
    judged = [f"{patient}, {i % 2}" for i, patient in enumerate(patients)]
    setting = Probe(strengths=(1e-5, 1.0), kinds=("linear",))
    noise = rng.normal(size=rows.shape).astype(np.float32)
    of_noise = probing.fit_and_predict(noise, part(labels, judged), tested, 4, setting)["linear"]
    strongest = make_pipeline(StandardScaler(), LogisticRegression(C=1e-5, max_iter=1000)).fit(noise, labels)
    np.testing.assert_allclose(of_noise, strongest.predict_proba(tested), rtol=1e-5)


def test_neighbours_are_as_many_as_are_asked_for_or_there_are() -> None:
    """The two nearest of (1, 0) are the first and the third."""
    rows, tested = np.array([[1, 0], [0, 1], [1, 1]], np.float32), np.array([[2, 0]], np.float32)
    two = probing.fit_and_predict(
        rows, part(np.array([0, 1, 2])), tested, 3, Probe(temperature=0.5, neighbours=2)
    )["knn"]
    votes = np.exp(np.array([1, -np.inf, np.sqrt(0.5)]) / 0.5)
    np.testing.assert_allclose(two[0], votes / votes.sum(), rtol=1e-5)
    sharp = probing.fit_and_predict(
        rows, part(np.array([0, 1, 2])), tested, 3, Probe(temperature=1e-4, neighbours=20)
    )["knn"]
    np.testing.assert_allclose(sharp[0], [1, 0, 0])
