"""The functions give the numbers that the commands write."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import retfound_dist
from retfound_dist.cli import main
from retfound_dist.errors import ConfigError, DataError
from tests.python_api.inputs import make_evaluation


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    make_evaluation(folder)
    return folder


def test_importing_the_package_imports_nothing_heavy_until_a_name_is_used() -> None:
    code = (
        "import sys, retfound_dist\n"
        "heavy = {'torch', 'numpy', 'timm', 'fsspec', 'matplotlib', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert set(retfound_dist.__all__) <= set(dir(retfound_dist))\n"
        "assert not heavy & set(sys.modules)\n"
        "retfound_dist.load_classifier\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_public_name_is_there_and_another_is_an_error() -> None:
    for name in retfound_dist.__all__:
        assert getattr(retfound_dist, name).__name__ == name
        assert getattr(retfound_dist, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        retfound_dist.no_such_name  # noqa: B018


def test_embed_gives_the_features_of_the_command(root: Path) -> None:
    out = str(root / "features.npz")
    assert main(["embed", str(root / "run"), str(root / "set"), "--out", out, "--quiet"]) == 0
    encoder = retfound_dist.load_encoder(str(root / "run"))
    images = retfound_dist.read_images(root / "set", like=encoder)
    features = retfound_dist.embed(encoder, images)
    expected = np.load(out)
    assert expected["keys"].tolist() == images.keys
    assert np.array_equal(expected["features"], features)
    np.testing.assert_allclose(encoder(images.tensor).numpy(), features, atol=1e-5)


def test_probabilities_of_images_by_a_classifier_of_eyes_come_with_a_warning(root: Path) -> None:
    classifier = retfound_dist.load_classifier(str(root / "out"))
    classifier.facts = replace(classifier.facts, unit={"kind": "eye", "pool": "mean"})
    images = retfound_dist.read_images(root / "set/MH/MH_0.jpg", like=classifier)
    with pytest.warns(UserWarning, match=r"was scored by eye, .* by image may be too low or too high"):
        retfound_dist.predict(classifier, images)


def test_predict_gives_the_probabilities_of_the_evaluation(root: Path) -> None:
    classifier = retfound_dist.load_classifier(str(root / "out"))
    images = retfound_dist.read_images(root / "set", like=classifier)
    plain = retfound_dist.predict(classifier, images, calibrated=False)
    assert plain.shape == (90, 3)
    of_key = dict(zip(images.keys, plain.tolist(), strict=True))
    with (root / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 10
    for row in rows:
        assert of_key[row["key"]] == [float(row[f"p_{name}"]) for name in classifier.classes]
    temperature = json.loads((root / "out" / "metrics.json").read_text())["temperature"]["value"]
    assert temperature != 1
    scaled = plain ** (1 / temperature)
    calibrated = retfound_dist.predict(classifier, images)
    np.testing.assert_allclose(calibrated, scaled / scaled.sum(1, keepdims=True), atol=2e-8)
    np.testing.assert_allclose(classifier(images.tensor).numpy(), calibrated, atol=1e-6)


def test_pixels_are_taken_as_arrays_and_tensors_and_no_images_give_no_rows(root: Path) -> None:
    classifier = retfound_dist.load_classifier(str(root / "out"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    expected = retfound_dist.predict(classifier, pixels)
    for same in (pixels[:, 0], torch.from_numpy(pixels)):
        assert np.array_equal(retfound_dist.predict(classifier, same), expected)
    assert retfound_dist.predict(classifier, pixels[:0]).shape == (0, 3)
    encoder = retfound_dist.load_encoder(str(root / "run"))
    assert retfound_dist.embed(encoder, pixels[:0]).shape == (0, encoder.width)


def test_images_and_models_of_another_kind_are_refused(root: Path) -> None:
    classifier = retfound_dist.load_classifier(str(root / "out"))
    encoder = retfound_dist.load_encoder(str(root / "run"))
    pixels = np.zeros((3, 1, 28, 28), np.uint8)
    wrong_images: list[Any] = [pixels[..., :20], pixels.astype(np.float32), np.repeat(pixels, 3, axis=1)]
    for wrong in wrong_images:
        with pytest.raises(DataError, match=r"takes uint8 of the shape \(N, 1, 28, 28\)"):
            retfound_dist.predict(classifier, wrong)
    with pytest.raises(ConfigError, match=r"predict takes what retfound_dist\.load_classifier gives"):
        retfound_dist.predict(encoder, pixels)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"embed takes what retfound_dist\.load_encoder gives"):
        retfound_dist.embed(classifier, pixels)  # type: ignore[arg-type]
