"""timm loads what is exported for it, and gives the logits of the classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.classifier.classifier import load_classifier
from retfound_dist.export.classifier_weights import hub_config, timm_network, write_folder, write_pth
from retfound_dist.model.backbones.opening import random_backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import encoder_shape
from retfound_dist.model.vit import VitVariant
from tests.export.inputs import CLASSES, make_classifier

NETWORKS = {"vit_demo_patch14": 28, "timm:test_convnext": 64, "timm:test_vit3": 96}


@pytest.mark.parametrize(("name", "side"), NETWORKS.items())
def test_timm_builds_the_network_strictly_and_from_a_folder(name: str, side: int, tmp_path: Path) -> None:
    classifier = load_classifier(make_classifier(tmp_path / "kept", random_backbone(name, side)))
    network = timm_network(classifier, 1)
    write_pth(network, str(tmp_path / "x.pth"))
    (tmp_path / "hub").mkdir()
    write_folder(network, tmp_path / "hub")
    (tmp_path / "hub" / "config.json").write_text(json.dumps(hub_config(network, CLASSES)))
    strict = timm.create_model(network.architecture, **network.arguments).eval()
    strict.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True), strict=True)
    hub = timm.create_model(f"local-dir:{tmp_path}/hub", pretrained=True).eval()
    images = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8)
    normalised = classifier.input_layer(images)
    with torch.no_grad():
        expected = classifier.seed_logits(images)[1]
        for model in (strict, hub):
            torch.testing.assert_close(model(normalised), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, classifier.seed_logits(images)[0], atol=1e-3)
    assert hub.pretrained_cfg["label_names"] == CLASSES
    inputs = timm.data.resolve_data_config({}, model=hub)
    assert tuple(inputs["input_size"]) == (3, side, side)
    assert tuple(inputs["mean"]) == classifier.backbone.preparation.mean


def test_a_network_that_timm_does_not_have_is_refused_with_the_formats_that_do(tmp_path: Path) -> None:
    variant = VitVariant(family="OCTCube", last_skip=False)
    backbone = PlainVit(None, encoder_shape("vit_demo_patch14"), 28, variant=variant)
    classifier = load_classifier(make_classifier(tmp_path / "kept", backbone))
    with pytest.raises(WeightsError, match=r"timm has no OCTCube.*--format onnx or torchscript"):
        timm_network(classifier, 0)
