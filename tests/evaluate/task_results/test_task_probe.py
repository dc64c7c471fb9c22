"""Linear probes of tasks find what features hold, and do not use unknown answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.task_results.task_probe import penalty_notes, probe_predictions
from retfound_dist.evaluate.tasks.task_scores import score_once
from tests.evaluate.tasks_made import FACTS, made_set


@pytest.mark.parametrize("kind", FACTS)
def test_a_probe_reads_the_answer_from_features_that_hold_it(kind: str) -> None:
    data, facts = made_set(kind), FACTS[kind]
    draw = np.random.default_rng(1)

    def features(part: str) -> np.ndarray:
        targets = data.parts[part].targets_NT
        assert targets is not None
        # An unknown label is noise in the features: a probe that used it as an answer would fail or learn it.
        known = np.where(np.isfinite(targets), targets, 0.5)
        noise = draw.normal(0, 0.1 * known.std(), (len(known), 6 + known.shape[1]))
        noise[:, : known.shape[1]] += known
        return noise.astype(np.float32)

    predictions = probe_predictions(facts, features("train"), features("test"), data, Probe())
    test = data.parts["test"].targets_NT
    assert test is not None
    scores = score_once(facts, test, predictions)
    decisive = {"multilabel": "auroc", "regression": "r2", "ordinal": "quadratic_kappa"}[kind]
    assert (scores[decisive] or 0) > 0.9
    if kind != "regression":
        assert predictions.min() >= 0
        assert predictions.max() <= 1
    if kind == "ordinal":
        assert predictions.sum(1) == pytest.approx(1)


def test_one_patient_cannot_choose_a_penalty_so_the_middle_one_is_used_and_that_is_said() -> None:
    data, facts, probe = made_set("regression"), FACTS["regression"], Probe(strengths=(0.01, 10.0, 0.5))
    train = data.parts["train"]
    assert penalty_notes(facts, train, probe) == []
    alone = replace(train, patients=("p",) * len(train))
    (note,) = penalty_notes(facts, alone, probe)
    assert "train has no second patient" in note
    assert "C = 0.5" in note
    assert penalty_notes(FACTS["ordinal"], alone, probe) == []
    features_ND = np.random.default_rng(0).normal(size=(len(train), 4)).astype(np.float32)
    of_one = replace(data, parts={**data.parts, "train": alone})
    assert alone.targets_NT is not None
    expected = make_pipeline(StandardScaler(), Ridge(alpha=2)).fit(features_ND, alone.targets_NT[:, 0])
    predicted = probe_predictions(facts, features_ND, features_ND, of_one, probe)[:, 0]
    assert predicted == pytest.approx(expected.predict(features_ND))
