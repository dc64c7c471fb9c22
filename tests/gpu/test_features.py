"""Frozen features, the attentive probe, heat maps and the numbers of the doctor on a pretended GPU.

Features wait twice in each pass: for the copy of the images, and for the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import EvalModel, Probe
from retfound_dist.doctor.numeric_check import numeric_checks
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.evaluate.probe import attentive_probe
from retfound_dist.evaluate.probe.frozen_features import compute_features, frozen_encoder
from retfound_dist.evaluate.probe.patch_tokens import PatchTokens
from retfound_dist.model.backbones.backbone import _channel_values
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import EncoderShape
from tests.doctor.checkups import small_checkup
from tests.gpu.gpu_tensor import PretendGpu
from tests.gpu.pretend_gpu import pretend_gpu

BACKBONE = PlainVit(None, EncoderShape(width=48, depth=2, heads=3, patch=14), 28)
IMAGES = [np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8) for i in range(12)]
PROBE = "retfound_dist/evaluate/probe/"


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    _channel_values.cache_clear()
    with pretend_gpu() as gpu:
        yield gpu
    _channel_values.cache_clear()


@pytest.mark.parametrize("name", ["vit_demo_patch14", "timm:convnext_atto"])
def test_features_are_those_of_a_cpu_in_fp32_and_wait_twice_in_each_pass(name: str, gpu: PretendGpu) -> None:
    size = 28 if name.startswith("vit") else 64
    start = open_starting_weights("none", EvalModel(name=name, image_size=size))
    images = [np.resize(image, (size, size)) for image in IMAGES[:3]]
    model = frozen_encoder(start)
    assert next(model.parameters()).is_cuda
    compute_features(model, start.backbone, images)
    with gpu.watched() as waits:
        ours = compute_features(model, start.backbone, images)
    assert Counter(wait.where for wait in waits) == {f"{PROBE}frozen_features.py compute_features": 2}
    assert ours.dtype == np.float32
    plain = compute_features(model.cpu(), start.backbone, images)
    assert np.abs(ours - plain).max() < 0.05 * np.abs(plain).max()


def tokens_of(start: StartingWeights) -> PatchTokens:
    return PatchTokens(start, IMAGES, np.arange(len(IMAGES)))


def test_a_step_of_the_attentive_probe_waits_only_for_its_copies(
    gpu: PretendGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))
    tokens = tokens_of(start)
    labels, images = np.arange(12) % 3, np.arange(12)
    steps, predictions = {}, []
    for last in (2, 7):
        monkeypatch.setattr(attentive_probe, "STEPS", (last,))
        with gpu.watched() as waits:
            fitted = attentive_probe.fit_attentive_probe(
                tokens, images, labels, np.arange(12), 3, Probe(inner_folds=2)
            )
        steps[last] = len(waits)
    # Three fits, of the two folds and of all images: 5 steps more in each. A step copies tokens and targets.
    assert steps[7] - steps[2] == 3 * 5 * 2
    predictions.append(fitted.predict_proba(images))
    monkeypatch.setattr(attentive_probe, "best_device", lambda: torch.device("cpu"))
    fitted = attentive_probe.fit_attentive_probe(
        tokens, images, labels, np.arange(12), 3, Probe(inner_folds=2)
    )
    predictions.append(fitted.predict_proba(images))
    np.testing.assert_allclose(predictions[0], predictions[1], atol=1e-3)


def test_heat_maps_are_those_of_a_cpu(gpu: PretendGpu) -> None:
    torch.manual_seed(0)
    model = BACKBONE.build(3)
    torch.nn.init.normal_(model.head.weight)
    plain = heat_maps(model, BACKBONE, IMAGES[:4], [0, 1, 2, 1])
    with gpu.watched() as waits:
        ours = heat_maps(model.to("cuda"), BACKBONE, IMAGES[:4], [0, 1, 2, 1])
    assert ours.rollout is not None
    np.testing.assert_allclose(ours.rollout, plain.rollout, atol=1e-6)
    np.testing.assert_allclose(ours.gradient, plain.gradient, atol=1e-5)
    assert sum(wait.why == "copies to the host" for wait in waits) == 2, "one for each map"


def test_the_doctor_compares_the_gpu_with_a_cpu(gpu: PretendGpu, tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, "train.compile=false")
    checkup = replace(checkup, group=replace(checkup.group, device=gpu.device))
    numbers, waits, graph = numeric_checks(checkup)
    assert (numbers.status, waits.status, graph.status) == ("ok", "ok", "skipped"), numbers.text
