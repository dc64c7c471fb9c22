"""A kept classifier predicts the test part of its evaluation again, and refuses what it cannot use."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.classifier.classifier import (
    load_classifier,
    mean_probabilities,
    seed_probabilities,
)
from retfound_dist.evaluate.classifier.classifier_file import read
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from tests.evaluate.inputs import checkpoint, class_folders, list_patients
from tests.evaluate.made import evaluated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set, and its evaluation with two seeds. Images of one shade, so that there are mistakes."""
    root = tmp_path_factory.mktemp("classifier")
    class_folders(root / "set", each=30, shade=8)
    list_patients(root / "set")
    evaluated(root, checkpoint(root / "run", 7), "seeds=[0, 1]")
    return root


def csv_probabilities(path: Path, **where: str) -> dict[str, list[float]]:
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if all(row[k] == v for k, v in where.items())]
    return {row["key"]: [float(row[name]) for name in row if name.startswith("p_")] for row in rows}


def test_the_test_part_is_predicted_again_exactly(folder: Path) -> None:
    data = load_labelled_set(EvalData(path=str(folder / "set")), image_size=28)
    classifier = load_classifier(str(folder / "out"))
    for part, name in (("test", "predictions.csv"), ("val", "val_predictions.csv")):
        # Among all images of the set, so that the test images are in other batches than in the evaluation.
        images = [*data.parts["val"].images, *data.parts["test"].images]
        keys = [*data.parts["val"].keys, *data.parts["test"].keys]
        probabilities_SNC = seed_probabilities(classifier, images)
        mean = dict(
            zip(keys, mean_probabilities(classifier, probabilities_SNC, calibrated=False), strict=True)
        )
        expected = csv_probabilities(folder / "out" / name)
        assert len(expected) == len(data.parts[part])
        for key, row in expected.items():
            assert mean[key].tolist() == row
    for place, seed in enumerate(classifier.seeds):
        of_seed = dict(zip(keys, probabilities_SNC[place].tolist(), strict=True))
        expected = csv_probabilities(folder / "out" / "seed_predictions.csv", seed=str(seed))
        assert all(of_seed[key] == row for key, row in expected.items())


def test_classifier_json_has_what_is_needed_to_use_it_and_no_path(folder: Path) -> None:
    facts = read(str(folder / "out" / "classifier"))
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert facts.classes == metrics["classes"]
    assert [entry.seed for entry in facts.seeds] == [0, 1]
    assert facts.temperature == metrics["temperature"]
    assert facts.scores["macro"] == metrics["macro"]
    assert facts.data["fingerprint"] == metrics["data"]["fingerprint"]
    assert facts.normalisation["interpolation"] == "bicubic"
    text = (folder / "out" / "classifier" / "classifier.json").read_text()
    assert str(folder / "set") not in text


def test_the_module_takes_uint8_and_floats_and_is_calibrated(folder: Path) -> None:
    classifier = load_classifier(str(folder / "out" / "classifier"))
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        of_bytes, of_floats = classifier(images), classifier(images.float() / 255)
        in_colour = classifier(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(of_bytes, of_floats, atol=1e-6, rtol=0)
    torch.testing.assert_close(of_bytes, in_colour)
    rows = seed_probabilities(classifier, list(images[:, 0].numpy()))
    expected = mean_probabilities(classifier, rows, calibrated=True)
    np.testing.assert_allclose(of_bytes.numpy(), expected, atol=1e-6)
    assert not classifier.training


def test_a_changed_file_is_refused_with_its_name(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / "out" / "classifier", tmp_path / "classifier"))
    weights = next(copy.glob("seed_1-*"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match=f"{weights.name} differs from classifier.json"):
        load_classifier(str(copy))


@pytest.mark.parametrize("task", ["segmentation", "survival"])
def test_a_task_of_a_later_version_is_refused(folder: Path, tmp_path: Path, task: str) -> None:
    copy = Path(shutil.copytree(folder / "out" / "classifier", tmp_path / "classifier"))
    tree = json.loads((copy / "classifier.json").read_text())
    (copy / "classifier.json").write_text(json.dumps(tree | {"task": {"kind": task}}))
    with pytest.raises(WeightsError, match=task):
        load_classifier(str(copy))
