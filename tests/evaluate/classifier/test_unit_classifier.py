"""A kept classifier predicts the eyes of its evaluation again, by the mean and by attention."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import nn

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.classifier import unit_classifier
from retfound_dist.evaluate.classifier.classifier import (
    load_classifier,
    mean_probabilities,
    seed_probabilities,
)
from retfound_dist.evaluate.classifier.unit_classifier import unit_probabilities
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from tests.evaluate.made import evaluated
from tests.evaluate.volumes import eye_volumes


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_the_eyes_of_the_test_part_are_predicted_again_exactly(pool: str, tmp_path: Path) -> None:
    eye_volumes(tmp_path / "set", patients=10, slices=2)
    out = evaluated(
        tmp_path, "none", "data.unit=eye", f"finetune.pool={pool}", "seeds=[0, 1]", "probe.enabled=false",
        "finetune.epochs=1",
    )  # fmt: skip
    data = load_labelled_set(EvalData(path=str(tmp_path / "set"), unit="eye"), 28)
    test = data.parts["test"]
    classifier = load_classifier(str(out))
    assert classifier.facts.unit == {"kind": "eye", "pool": pool}
    assert len(classifier.pools) == (2 if pool == "attention" else 0)
    index = test.index("eye")
    probabilities_SUC, slices = unit_probabilities(classifier, test.images, index)
    mean_UC = mean_probabilities(classifier, probabilities_SUC, calibrated=False)
    with (out / "predictions.csv").open() as file:
        rows = {row["key"]: [float(row["p_CSR"]), float(row["p_NORMAL"])] for row in csv.DictReader(file)}
    assert list(rows) == list(index.names)
    assert mean_UC.tolist() == list(rows.values())
    assert slices is not None
    with (out / "slice_predictions.csv").open() as file:
        weights = [row["attention"] for row in csv.DictReader(file)]
    expected = [""] * len(test) if slices.weights_N is None else [f"{w:.8f}" for w in slices.weights_N]
    assert weights == expected
    name = json.loads((out / "classifier/classifier.json").read_text())["seeds"][0]["file"]
    pooled = [key for key in load_file(out / "classifier" / name) if key.startswith("unit_pool.")]
    assert bool(pooled) == (pool == "attention")


def test_images_are_predicted_as_without_units(tmp_path: Path) -> None:
    eye_volumes(tmp_path / "set", patients=10, slices=1)
    out = evaluated(tmp_path, "none", "probe.enabled=false", "finetune.epochs=1")
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), 28)
    classifier, test = load_classifier(str(out)), data.parts["test"]
    assert classifier.facts.unit == {"kind": "image", "pool": "mean"}
    images_SNC, slices = unit_probabilities(classifier, test.images, test.index("image"))
    assert slices is None
    eyes_SUC, _ = unit_probabilities(classifier, test.images, test.index("eye"))
    # One slice an eye, and rounded twice.
    assert np.abs(eyes_SUC - images_SNC).max() < 1e-7


@pytest.mark.parametrize("model", ["vit_demo_patch14", "timm:test_convnext", "timm:test_resnet"])
def test_probabilities_and_features_come_from_one_pass(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eye_volumes(tmp_path / "set", patients=10, slices=2)
    size = 64 if "timm" in model else 28
    out = evaluated(
        tmp_path, "none", f"model.name={model}", f"model.image_size={size}", "data.unit=eye",
        "finetune.pool=attention", "probe.enabled=false", "finetune.epochs=1", "finetune.layer_decay=1.0",
    )  # fmt: skip
    classifier = load_classifier(str(out))
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), classifier.image_size)
    images = data.parts["test"].images[: classifier.facts.batch - 1]  # fewer than a batch
    passes: list[int] = []
    network = classifier.models[0]
    network.register_forward_hook(lambda *_: passes.append(1))
    image_SNC, features_SND = unit_classifier.probabilities_and_features(classifier, images)
    assert len(passes) == 1
    assert np.array_equal(image_SNC, seed_probabilities(classifier, images))
    assert np.array_equal(features_SND, unit_classifier._features_alone(classifier, images))
    # Networks whose last layer is something else take two passes, to the same numbers.
    monkeypatch.setattr(network, "get_classifier", lambda: (nn.Identity(), nn.Identity()))
    again_SNC, again_SND = unit_classifier.probabilities_and_features(classifier, images)
    assert np.array_equal(again_SNC, image_SNC)
    assert np.array_equal(again_SND, features_SND)
