from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, EvalModel, Probe
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.probe import attentive_probe
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.probe.probe_evaluation import predict_test_part, score_test_part
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import class_folders


def test_the_test_part_is_predicted_by_each_probe_and_the_gain_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attentive_probe, "STEPS", (2, 4))
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set"))), 28)
    start = open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))
    features = cached_features(start, data, ("train", "test"), str(tmp_path))
    with ProgressDisplay() as show:
        predicted = predict_test_part(start, features, data, Probe(), show)
        scored = score_test_part(predicted, data, Probe(), 20, show)
        two = predict_test_part(start, features, data, Probe(kinds=("linear", "knn")), show)
    assert set(predicted) == set(scored) == {"linear", "knn", "attentive"}
    assert all(p_NC.shape == (len(data.parts["test"]), 3) for p_NC in predicted.values())
    assert "minus_linear" in scored["attentive"]
    assert "the attentive probe" in "".join(capfd.readouterr()).lower()
    # The attentive probe changes nothing in the others.
    assert set(two) == {"linear", "knn"}
    assert all(np.array_equal(two[name], predicted[name]) for name in two)
