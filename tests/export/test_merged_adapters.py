"""Merged weights compute what the adapters computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.classifier.classifier import load_classifier
from retfound_dist.export.classifier_weights import timm_network
from retfound_dist.export.merged_adapters import merged_classifier, merged_model
from retfound_dist.model.backbones.opening import random_backbone
from tests.export.inputs import make_classifier

LORA = Finetune(method="lora", lora_rank=2)


@pytest.mark.parametrize(("name", "side"), [("vit_demo_patch14", 28), ("timm:test_convnext", 64)])
def test_adapters_are_merged_into_linear_layers_and_convolutions(
    name: str, side: int, tmp_path: Path
) -> None:
    classifier = load_classifier(make_classifier(tmp_path, random_backbone(name, side), recipe=LORA))
    merged = merged_classifier(classifier, classifier.seeds)
    images = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8)
    torch.testing.assert_close(merged.seed_logits(images), classifier.seed_logits(images), atol=1e-5, rtol=0)
    assert not any("lora" in key or "base_layer" in key for key in merged.state_dict())
    assert any("lora" in key for key in classifier.state_dict())
    plain = random_backbone(name, side).build(3)
    assert merged.models[0].state_dict().keys() == plain.state_dict().keys()


def test_timm_takes_the_merged_weights(tmp_path: Path) -> None:
    classifier = load_classifier(make_classifier(tmp_path, recipe=LORA))
    network = timm_network(classifier, 0)
    model = timm.create_model(network.architecture, **network.arguments).eval()
    model.load_state_dict(network.state, strict=True)
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        actual = model(classifier.input_layer(images))
    torch.testing.assert_close(actual, classifier.seed_logits(images)[0], atol=1e-5, rtol=0)


def test_a_network_without_adapters_is_copied_and_single_seeds_can_be_chosen(tmp_path: Path) -> None:
    classifier = load_classifier(make_classifier(tmp_path, seeds=(3, 5)))
    copy = merged_model(classifier.models[0])
    assert copy is not classifier.models[0]
    single = merged_classifier(classifier, (5,))
    assert single.seeds == (5,)
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(single.seed_logits(images)[0], classifier.seed_logits(images)[1])
