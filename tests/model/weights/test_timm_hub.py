"""timm's published weights by name, from a cache as Hugging Face's client lays it out."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from retfound_dist.config.schema import EvalModel
from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.vit import build_encoder
from retfound_dist.model.weights.timm_hub import FILE, is_timm_model
from retfound_dist.model.weights.weight_files import load_into, read_weights

NAME = "vit_tiny_patch16_224.augreg_in21k"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    return tmp_path


def fetched(cache: Path, seed: int = 0) -> timm.models.VisionTransformer:
    """Put weights where a download would; gives the model that timm itself builds of them."""
    torch.manual_seed(seed)
    model = timm.create_model(NAME, pretrained=False).eval()
    folder = cache / f"models--timm--{NAME}"
    (folder / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    safetensors.torch.save_file(model.state_dict(), folder / "snapshots" / "abc" / FILE, {"format": "pt"})
    return model


def test_a_timm_name_is_timm_s_own_encoder_without_network(cache: Path) -> None:
    theirs = fetched(cache)
    start = open_starting_weights(NAME, EvalModel(name="vit_large_patch16", image_size="own"))
    assert (start.url, start.kind, start.image_size) == (NAME, "file", 224)
    assert start.backbone.architecture()["heads"] == 3
    weights = read_weights(NAME)
    ours = build_encoder(weights.shape, 224).eval()
    assert not [name for name in load_into(ours, weights, (14, 14)).unused if not name.startswith("head")]
    images = Preparation().normalise(torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8))
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(images), theirs.forward_features(images))


def test_other_weights_under_the_same_name_have_another_identity(cache: Path) -> None:
    fetched(cache)
    first = open_starting_weights(NAME, EvalModel()).identity
    fetched(cache, seed=1)
    assert open_starting_weights(NAME, EvalModel()).identity != first


def test_a_name_that_is_not_in_the_cache_and_cannot_be_fetched_gets_one_line(cache: Path) -> None:
    with pytest.raises(
        WeightsError, match=rf"timm's {NAME} are not in .* cannot be fetched \(ConnectionE"
    ) as e:
        read_weights(NAME)
    assert "\n" not in str(e.value)


def test_names_that_timm_does_not_know_or_has_no_weights_of_say_so(cache: Path) -> None:
    assert is_timm_model("vit_base_patch16_224.mae")
    assert not is_timm_model("runs/vit_base_patch16_224")
    with pytest.raises(WeightsError, match=r"no weights at vit_bose_patch16: .* the name of a timm model"):
        read_weights("vit_bose_patch16")
    with pytest.raises(WeightsError, match=r"timm publishes no weights for vit_giant_patch14_224"):
        read_weights("vit_giant_patch14_224")


def test_a_vit_with_parts_of_another_kind_is_refused(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", pre_norm=True)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"has norm_pre\.weight, which this ViT does not have"):
        read_weights(str(tmp_path / "w.pth"))
