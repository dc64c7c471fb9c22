from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from retfound_dist.config.schema import Finetune
from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.evaluate.finetune.layer_decay import parameter_groups
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.named_inputs import VISIONFM
from retfound_dist.model.backbones.opening import backbone_from, open_model, random_backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.backbones.timm_backbone import TimmBackbone
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.hub_repository import fetch
from retfound_dist.model.weights.weight_files import read_weights
from tests.evaluate.inputs import MODEL
from tests.model.backbones.families import drawn
from tests.model.backbones.relatives import (
    drawn_mirage,
    drawn_octcube,
    drawn_pixio,
    mirage_features,
    octcube_features,
    pixio_features,
)
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
    assert (model.timm_name, model.image_size) == (NAME, 56)
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


def mirage_of_gray(state: dict[str, Tensor], x_B3HW: Tensor) -> Tensor:
    tokens = mirage_features(state, x_B3HW[:, :1])
    # The reference has its global token at the end.
    return torch.cat([tokens[:, -1:], tokens[:, :-1]], 1)


RELATIVES = {
    "Pixio": (drawn_pixio, pixio_features, 8, 64),
    "MIRAGE": (drawn_mirage, mirage_of_gray, 1, 128),
    "OCTCube": (drawn_octcube, octcube_features, 1, 64),
}
"""Weights, reference tokens, class tokens, own size."""


@pytest.mark.parametrize("family", RELATIVES)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_relative_of_the_plain_vit_gives_the_tokens_of_its_own_formulas_at_each_size(
    family: str, scale: int, tmp_path: Path
) -> None:
    draw, reference, prefix, own_size = RELATIVES[family]
    state, path = draw(), tmp_path / "w.pth"
    torch.save({"model": state}, path)
    assert open_model(str(path)).image_size == own_size
    backbone = opened(str(path), scale * own_size)
    assert backbone.family == f"{family} ViT of width 128, depth 2, patch {own_size // 4}"
    # The projects feed gray images; each has its own normalisation.
    x = backbone.preparation.normalise(torch.randint(0, 256, (2, 1, *[scale * own_size] * 2)).byte())
    expected, model = reference(state, x), backbone.build().eval()
    assert expected.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(model.forward_features(x), expected, atol=1e-4, rtol=1e-4)  # type: ignore[operator]
        torch.testing.assert_close(backbone.positions(model, x), expected[:, prefix:], atol=1e-4, rtol=1e-4)
        pooled = backbone.pooled(model, x)
    torch.testing.assert_close(pooled, expected[:, prefix:].mean(1), atol=1e-4, rtol=1e-4)
    assert backbone.facts.tokens == expected.shape[1]


@pytest.mark.parametrize("family", RELATIVES)
def test_fine_tuning_moves_every_weight_of_a_relative_by_layers(family: str, tmp_path: Path) -> None:
    draw, _, prefix, size = RELATIVES[family]
    torch.save(draw(), tmp_path / "w.pth")
    model: Any = opened(str(tmp_path / "w.pth")).build(classes=2, drop_path=0.1, seed=1)
    groups = parameter_groups(model, Finetune(layer_decay=0.5))
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    rate = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert [rate[f"blocks.{block}.mlp.fc2.weight"] for block in (0, 1)] == [0.25, 0.5]
    stem = {"cls_token", "pos_embed", *(["reg_token"] if prefix > 1 else [])}
    assert {rate[name] for name in stem} == {0.125}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.0)
    for _ in range(2):  # the head starts near 0: the first step moves it, the second all below it
        optimizer.zero_grad()
        logits = model.train()(torch.randn(8, 3, size, size))
        torch.nn.functional.cross_entropy(logits, torch.arange(8) % 2).backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("family", RELATIVES)
def test_a_relative_is_refused_by_name_where_an_autoencoder_is_needed(family: str, tmp_path: Path) -> None:
    torch.save({"model": RELATIVES[family][0]()}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=rf"w\.pth holds {family}'s encoder, without a decoder of MAE\. Only"
    ):
        read_weights(str(tmp_path / "w.pth"))


def test_a_relative_is_read_from_the_hub_too(hub: Hub) -> None:
    state = {f"model.{name}": value for name, value in drawn_mirage().items()}
    config = {"input_size": 512, "patch_size": 32, "modalities": "bscan-slo", "size": "base"}
    hub.files["j-morano/MIRAGE-Base"] = {
        "model.safetensors": safetensors.torch.save(state),
        "config.json": json.dumps(config).encode(),
    }
    backbone = opened("hf:j-morano/MIRAGE-Base")
    assert backbone.family.startswith("MIRAGE")
    assert (backbone.preparation.mean, backbone.preparation.interpolation) == ((0.0, 0.0, 0.0), "bilinear")


def ibot_checkpoint(modality: str | None = None) -> dict[str, Any]:
    """As iBOT's and VisionFM's trainers write it: the teacher without, the student with a masked embedding."""
    vit = drawn("vit_tiny_patch16_224", 64).state_dict()
    teacher = {f"backbone.{name}": value for name, value in vit.items()}
    student = {f"module.{name}": torch.zeros_like(value) for name, value in teacher.items()}
    student["module.backbone.masked_embed"] = torch.zeros(1, 192)
    for state, prefix in ((teacher, ""), (student, "module.")):
        state[f"{prefix}head.mlp.0.weight"] = torch.zeros(8, 192)
    arguments = argparse.Namespace(arch="vit_tiny", **({"modality": modality} if modality else {}))
    return {"student": student, "teacher": teacher, "epoch": 3, "args": arguments}


@pytest.mark.parametrize(
    ("name", "modality", "mean"),
    [
        ("checkpoint.pth", None, (0.485, 0.456, 0.406)),
        ("VFM_OCT_weights.pth", None, VISIONFM["OCT"][0]),
        ("checkpoint.pth", "OCT", VISIONFM["OCT"][0]),
    ],
)
def test_ibot_and_visionfm_are_read_from_their_teacher_each_with_its_normalisation(
    name: str, modality: str | None, mean: tuple[float, ...], tmp_path: Path
) -> None:
    torch.save(ibot_checkpoint(modality), tmp_path / name)
    backbone = opened(str(tmp_path / name))
    assert (backbone.image_size, backbone.preparation.mean) == (64, mean)
    reference: Any = drawn("vit_tiny_patch16_224", 64)
    torch.manual_seed(5)
    with torch.no_grad():
        expected = reference.forward_features(torch.randn(2, 3, 64, 64))[:, 1:].mean(1)
    torch.testing.assert_close(features(backbone, 64), expected, atol=1e-4, rtol=1e-4)


def test_retfound_s_dinov2_line_runs_at_224_pixels_and_plain_dinov2_at_its_own(tmp_path: Path) -> None:
    reference: Any = drawn("vit_small_patch14_dinov2", 56)
    vit = {f"backbone.{name}": value for name, value in reference.state_dict().items()}
    for name in ("RETFound_dinov2_meh.pth", "dinov2.pth"):
        torch.save({"teacher": {**vit, "dino_head.mlp.0.weight": torch.zeros(8, 384)}}, tmp_path / name)
    sizes = {
        name: opened(str(tmp_path / name)).image_size for name in ("RETFound_dinov2_meh.pth", "dinov2.pth")
    }
    assert sizes == {"RETFound_dinov2_meh.pth": 224, "dinov2.pth": 56}
    torch.manual_seed(5)
    with torch.no_grad():
        expected = reference.forward_features(torch.randn(2, 3, 56, 56))[:, 1:].mean(1)
    found = features(opened(str(tmp_path / "RETFound_dinov2_meh.pth"), 56), 56)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["eva02_tiny_patch14_224", "vit_xsmall_patch16_clip_224", "vit_tiny_patch16_224"]
)
def test_timm_s_families_are_read_by_name_with_a_file_and_from_a_hub_repository(
    name: str, hub: Hub, tmp_path: Path
) -> None:
    state = {key: value.contiguous() for key, value in drawn(name).state_dict().items()}
    published = timm.get_pretrained_cfg(name).to_dict()
    config = {
        "architecture": name,
        "pretrained_cfg": {k: published[k] for k in ("mean", "std", "input_size")},
    }
    hub.files["timm/some"] = {
        "model.safetensors": safetensors.torch.save(state), "config.json": json.dumps(config).encode(),
    }  # fmt: skip
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    ours = [opened(f"timm:{name}@{tmp_path}/w.safetensors"), opened("hf:timm/some")]
    assert [backbone.family for backbone in ours] == [name, name]
    assert ours[0].preparation.mean == ours[1].preparation.mean == tuple(published["mean"])
    torch.testing.assert_close(features(ours[0], 224), features(ours[1], 224))


def test_retfound_green_runs_at_its_own_size_and_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "retfoundgreen_statedict.pth"
    torch.save(drawn(NAME, 392).state_dict(), path)
    for url in (str(path), f"timm:{NAME}@{path}"):
        backbone = opened(url)
        assert (backbone.family, backbone.image_size) == (NAME, 392)
        assert (backbone.preparation.mean, backbone.preparation.std) == ((0.5,) * 3, (0.5,) * 3)
        assert backbone.preparation.interpolation == "bilinear"
