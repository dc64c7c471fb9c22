"""`retfound evaluate` and `retfound predict` on a pretended GPU, with heat maps, a page and an attention head.

A pass of a prediction waits twice: for the copy of its images, and for its results.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import retfound_dist
from retfound_dist.evaluate.classifier.classifier import load_classifier
from retfound_dist.evaluate.units.attention_pool import AttentionPool, attend
from retfound_dist.listing.unit_names import NamedImage, index_units
from retfound_dist.model.backbones.backbone import _channel_values
from tests.evaluate.inputs import checkpoint, class_folders
from tests.evaluate.made import evaluated
from tests.evaluate.volumes import eye_volumes
from tests.gpu.gpu_tensor import PretendGpu
from tests.gpu.pretend_gpu import pretend_gpu
from tests.prediction.inputs import predict

CLASSIFIER = "retfound_dist/evaluate/classifier/classifier.py seed_probabilities"


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    _channel_values.cache_clear()
    with pretend_gpu() as gpu:
        yield gpu
    _channel_values.cache_clear()


def probabilities_in(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        return {
            row["key"]: [float(value) for name, value in row.items() if name.startswith("p_")]
            for row in csv.DictReader(file)
        }


def test_a_classifier_of_the_gpu_predicts_its_test_part_again_and_draws_it(
    gpu: PretendGpu, tmp_path: Path
) -> None:
    class_folders(tmp_path / "set", each=8)
    start = checkpoint(tmp_path / "run", 7)
    out = evaluated(tmp_path, start, "seeds=[0]", "finetune.epochs=1", "probe.kinds=['linear']")
    more = ["--heatmaps", tmp_path / "maps", "--html", tmp_path / "page.html", "--uncalibrated", "--quiet"]
    with gpu.watched() as waits:
        assert predict(out, tmp_path / "set", "--out", tmp_path / "p.csv", *more, "--workers", "1") == 0
    again, before = probabilities_in(tmp_path / "p.csv"), probabilities_in(out / "predictions.csv")
    assert len(before) > 1
    assert {key: again[key] for key in before} == before, "the same GPU gives the same digits"
    assert len(list((tmp_path / "maps").glob("*.png"))) == 24
    batch = load_classifier(str(out)).facts.batch
    assert Counter(wait.where for wait in waits)[CLASSIFIER] == 2 * -(-24 // batch)

    # In Python, on the device of the model.
    classifier, encoder = retfound_dist.load_classifier(str(out)), retfound_dist.load_encoder(start)
    images = retfound_dist.read_images(
        [str(p) for p in sorted((tmp_path / "set/MH").glob("*"))], like=classifier
    )
    plain, features = retfound_dist.predict(classifier, images), retfound_dist.embed(encoder, images)
    ours = retfound_dist.predict(classifier.to("cuda"), images)
    np.testing.assert_allclose(ours, plain, atol=0.02)
    embedded = retfound_dist.embed(encoder.to("cuda"), images)
    assert np.abs(embedded - features).max() < 0.05 * np.abs(features).max()


@pytest.mark.slow
def test_units_are_predicted_on_the_gpu(gpu: PretendGpu, tmp_path: Path) -> None:
    eye_volumes(tmp_path / "set", patients=8, slices=2)
    settings = ["finetune.epochs=1", "probe.enabled=false", "seeds=[0]", "data.unit=eye"]
    out = evaluated(tmp_path, "none", *settings, "finetune.pool=attention")
    arguments = ["--unit", "eye", "--uncalibrated", "--quiet", "--workers", "1"]
    assert predict(out, tmp_path / "set", "--out", tmp_path / "p.csv", *arguments) == 0
    again, before = probabilities_in(tmp_path / "p.csv"), probabilities_in(out / "predictions.csv")
    assert len(before) > 1
    assert {key: again[key] for key in before} == before


def test_units_of_a_part_are_copied_to_the_gpu_once_and_back_twice(gpu: PretendGpu) -> None:
    """Their probabilities, and the weights of their images."""
    index = index_units([NamedImage(str(i), f"p{(5 * i) % 7}") for i in range(20)], "patient")
    rows = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    plain = attend(AttentionPool(5, 3), rows, index)
    pool = AttentionPool(5, 3).to("cuda")
    with gpu.watched() as waits:
        ours = attend(pool, rows, index)
    assert Counter(wait.why for wait in waits) == {"copies to the GPU": 1, "copies to the host": 2}
    for mine, theirs in zip(ours, plain, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
