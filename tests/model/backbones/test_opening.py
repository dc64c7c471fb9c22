from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.opening import backbone_from, open_model, random_backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.backbones.timm_backbone import TimmBackbone
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.hub_repository import fetch
from tests.evaluate.inputs import MODEL
from tests.model.backbones.families import drawn
from tests.model.weights.hub_server import Hub, serving, use

NAME = "vit_small_patch14_reg4_dinov2"


def opened(url: str, size: int | None = None) -> Backbone:
    model = open_model(url)
    return backbone_from(url, json.loads(json.dumps(model.to_json())), model, size)


def features(backbone: Backbone, size: int) -> Tensor:
    torch.manual_seed(5)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        return backbone.pooled(backbone.build().eval(), x)


@pytest.fixture(scope="module")
def dinov2() -> dict[str, Tensor]:
    return drawn(NAME, 56).state_dict()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    fetch.cache_clear()
    with serving() as server:
        use(server, tmp_path / "cache", monkeypatch)
        yield server


def test_a_name_with_a_file_is_read_as_that_architecture(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model = drawn("convnext_atto")
    safetensors.torch.save_file(model.state_dict(), path)
    backbone = opened(f"timm:convnext_atto@{path}", 64)
    assert isinstance(backbone, TimmBackbone)
    assert (backbone.family, backbone.image_size) == ("convnext_atto", 64)
    torch.manual_seed(5)
    expected = model.forward_head(model.forward_features(torch.randn(2, 3, 64, 64)), pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(features(backbone, 64), expected, atol=1e-4, rtol=1e-4)


def test_a_file_of_a_known_family_needs_no_name_wherever_its_tensors_lie(
    tmp_path: Path, dinov2: dict[str, Tensor]
) -> None:
    path = tmp_path / "w.pth"
    teacher = {f"module.backbone.{name}": value for name, value in dinov2.items()}
    student = {name: torch.zeros_like(value) for name, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 3}, path)
    model = open_model(str(path))
    assert (model.timm_name, model.image_size) == (NAME, 518)
    assert model.notes == (f"weights: {path} is read as timm's {NAME}",)
    named = tmp_path / "plain.pth"
    torch.save(dinov2, named)
    torch.testing.assert_close(
        features(opened(str(path), 56), 56), features(opened(f"timm:{NAME}@{named}", 56), 56)
    )


def test_a_plain_vit_stays_with_our_own_reader(tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    torch.save({"model": MaskedAutoencoder(MODEL).state_dict()}, path)
    backbone = opened(str(path))
    assert isinstance(backbone, PlainVit)
    assert backbone.image_size == 28


def test_another_file_at_the_same_place_is_not_used_in_its_stead(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(drawn("convnext_atto").state_dict(), path)
    url = f"timm:convnext_atto@{path}"
    facts = open_model(url).to_json()
    remembered = backbone_from(url, facts, None, 64)
    assert remembered.build() is not None
    late = backbone_from(url, facts, None, 64)
    safetensors.torch.save_file(drawn("convnext_atto", seed=1).state_dict(), path)
    with pytest.raises(WeightsError, match="has changed since it was first read"):
        late.build()


def test_a_hub_repository_of_timm_brings_its_architecture_and_its_normalisation(hub: Hub) -> None:
    config = {
        "architecture": "convnext_atto",
        "pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3]},
    }
    weights = safetensors.torch.save(
        {k: v.contiguous() for k, v in drawn("convnext_atto").state_dict().items()}
    )
    hub.files["who/what"] = {"model.safetensors": weights, "config.json": json.dumps(config).encode()}
    backbone = opened("hf:who/what")
    assert (backbone.family, backbone.image_size) == ("convnext_atto", 96)
    assert backbone.preparation.mean == (0.1, 0.2, 0.3)
    assert backbone.preparation.std == (0.229, 0.224, 0.225)


def test_a_hub_repository_may_hold_a_file_of_mae(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": MaskedAutoencoder(MODEL).state_dict()}, path)
    hub.files["who/retfound"] = {"RETFound.pth": path.read_bytes(), "README.md": b""}
    assert isinstance(opened("hf:who/retfound"), PlainVit)
    assert isinstance(opened("hf:who/retfound@main/RETFound.pth", 56), PlainVit)


def test_what_cannot_be_read_is_named_with_its_family(hub: Hub, tmp_path: Path) -> None:
    names: dict[str, Any] = {"embeddings.patch_embeddings.projection.weight": torch.zeros(8, 3, 2, 2)}
    hub.files["who/vit"] = {
        "model.safetensors": safetensors.torch.save(names), "config.json": b'{"model_type": "dinov3_vit"}',
    }  # fmt: skip
    with pytest.raises(
        WeightsError,
        match=r"hf:who/vit holds a ViT with Hugging Face .* \(its config\.json says dinov3_vit\)",
    ):
        open_model("hf:who/vit")
    path = tmp_path / "w.pth"
    torch.save(drawn("resnet18").state_dict(), path)
    with pytest.raises(WeightsError, match=r"w\.pth holds a convolutional network"):
        open_model(str(path))


def test_a_random_encoder_of_any_family_has_its_own_size_or_the_one_that_is_asked_for() -> None:
    assert (
        random_backbone("vit_demo_patch14", None).image_size,
        random_backbone("vit_demo_patch14", 28).image_size,
    ) == (224, 28)
    convnext = random_backbone("timm:convnext_atto", None)
    assert (convnext.family, convnext.image_size) == ("convnext_atto", 224)
    assert not torch.equal(features(convnext.at_size(64), 64), torch.zeros(2, 320))
    with pytest.raises(ConfigError, match=r"model\.name='timm:convnext_atto@w\.pth' names a file"):
        random_backbone("timm:convnext_atto@w.pth", None)
