"""A graph gives the probabilities of the classifier, in batches of any size, or is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from retfound_dist.config.schema import Finetune
from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.evaluate.classifier.classifier import Classifier, load_classifier
from retfound_dist.export import classifier_graph
from retfound_dist.export.classifier_export import metadata
from retfound_dist.export.merged_adapters import merged_classifier
from retfound_dist.model.backbones.opening import random_backbone
from tests.evaluate.tasks_made import FACTS
from tests.export.inputs import CLASSES, make_classifier

NETWORKS = {"vit_demo_patch14": 28, "timm:test_convnext": 64, "timm:test_resnet": 64,
            "timm:eva02_tiny_patch14_224": 28}  # fmt: skip
"""A plain ViT, two with maps, one with rotary positions; each with its side of the input."""


@pytest.fixture(scope="module", params=NETWORKS)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    backbone = random_backbone(request.param, NETWORKS[request.param])
    return load_classifier(make_classifier(tmp_path_factory.mktemp("kept"), backbone))


def images(classifier: Classifier, count: int) -> Tensor:
    side = classifier.image_size
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8)


def test_onnxruntime_gives_the_classifiers_probabilities_in_batches_of_any_size(
    classifier: Classifier, tmp_path: Path
) -> None:
    path = str(tmp_path / "classifier.onnx")
    merged = merged_classifier(classifier, classifier.seeds)
    assert classifier_graph.write_onnx(merged, path, metadata(merged)) < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["classifier.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    side = classifier.image_size
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 1, side, side])
    assert (given.name, given.shape) == ("probabilities", ["batch", len(CLASSES)])
    for count in (1, 3, 17):
        batch = images(classifier, count)
        expected = classifier(batch).numpy()
        (actual,) = session.run(None, {"images": batch.numpy()})
        np.testing.assert_allclose(actual, expected, atol=1e-4)
        assert np.ptp(expected, axis=0).max() > 1e-3 or count == 1
    notes = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(notes["classes"]) == CLASSES
    assert notes["image_size"] == str(side)
    assert "shorter side" in notes["preparation"]
    assert "CC BY-NC 4.0" in notes["licence"]
    assert "not a medical device" in notes["use"]
    assert notes["version"]


def test_a_traced_module_gives_them_too(classifier: Classifier, tmp_path: Path) -> None:
    path = str(tmp_path / "classifier.pt")
    assert classifier_graph.write_torchscript(classifier, path, metadata(classifier)) < 1e-6
    files = {"metadata.json": ""}
    graph = torch.jit.load(path, _extra_files=files)  # type: ignore[no-untyped-call]
    for count in (1, 3, 17):
        batch = images(classifier, count)
        torch.testing.assert_close(graph(batch), classifier(batch), atol=1e-6, rtol=0)
    assert json.loads(json.loads(files["metadata.json"])["classes"]) == CLASSES


@pytest.mark.parametrize("kind", FACTS)
def test_a_graph_of_another_task_gives_its_predictions(kind: str, tmp_path: Path) -> None:
    kept = load_classifier(make_classifier(tmp_path / "kept", task=FACTS[kind]))
    merged, path = merged_classifier(kept, kept.seeds), str(tmp_path / "x")
    batch = images(kept, 5)
    expected = kept(batch).numpy()
    assert expected.shape == (5, {"multilabel": 2, "regression": 1, "ordinal": 3}[kind])
    assert np.ptp(expected, axis=0).max() > 1e-3
    classifier_graph.write_onnx(merged, path, metadata(merged))
    session = onnxruntime.InferenceSession(path)
    name = "numbers" if kind == "regression" else "probabilities"
    np.testing.assert_allclose(
        session.run([name], {"images": batch.numpy()})[0], expected, rtol=1e-4, atol=1e-4
    )
    classifier_graph.write_torchscript(merged, path, {})
    np.testing.assert_allclose(torch.jit.load(path)(batch), expected, rtol=1e-6, atol=1e-6)  # type: ignore[no-untyped-call]


def test_adapters_are_part_of_the_graph(tmp_path: Path) -> None:
    url = make_classifier(tmp_path / "kept", recipe=Finetune(method="lora", lora_rank=2))
    lora = load_classifier(url)
    merged = merged_classifier(lora, (1,))
    classifier_graph.write_onnx(merged, str(tmp_path / "x.onnx"), {})
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    batch = images(lora, 3)
    logits_BC = lora.models[1](lora.input_layer(batch))
    expected = (logits_BC.softmax(-1).log() / 0.7).softmax(-1).numpy()
    np.testing.assert_allclose(session.run(None, {"images": batch.numpy()})[0], expected, atol=1e-4)


class Baked(nn.Module):
    """A network whose trace is wrong: it holds the mean of the images that it was traced with."""

    def forward(self, images_B3SS: Tensor) -> Tensor:
        mean = float(images_B3SS.mean())
        return images_B3SS.mean((2, 3)) * 50 * mean + mean * torch.tensor([50.0, -50.0, 0.0])


@pytest.mark.parametrize("write", [classifier_graph.write_onnx, classifier_graph.write_torchscript])
def test_a_graph_that_computes_something_else_is_refused(write: Any, tmp_path: Path) -> None:
    kept = load_classifier(make_classifier(tmp_path / "kept"))
    wrong = Classifier([Baked()], kept.backbone, kept.facts).eval()
    with pytest.raises(WeightsError, match=r"differs from the classifier by .* nothing is written"):
        write(wrong, str(tmp_path / "x"), {})
    other = load_classifier(make_classifier(tmp_path / "other", recipe=Finetune(method="lora", lora_rank=2)))
    with pytest.raises(WeightsError, match="differs from the classifier by"):
        write(kept, str(tmp_path / "x"), {}, other)


def test_a_classifier_too_large_for_a_file_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load_classifier(make_classifier(tmp_path / "kept"))
    monkeypatch.setattr(classifier_graph, "MAX_ONNX_BYTES", 10_000_000)
    with pytest.raises(WeightsError, match=r"22\.3 MB of weights.* holds 10 MB: .*--seed 0.*torchscript"):
        classifier_graph.write_onnx(kept, str(tmp_path / "x"), {})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}: pip install 'retfound-dist\[onnx\]'"):
        classifier_graph.check_packages()
