"""What is exported is read by others, bit by bit."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Data, Model, PretrainConfig, Run, Train
from retfound_dist.estimate.model_shapes import TEST_RESIZE
from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.mae import MaskedAutoencoder, normalise, patchify
from retfound_dist.model.weights.export import crop_pct, export
from retfound_dist.model.weights.weight_files import Weights, autoencoder_from, read_weights

SMALL = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=1, decoder_heads=2)
WIDE = replace(SMALL, image_size=(28, 84))


def held(config: Model) -> tuple[Weights, MaskedAutoencoder]:
    """Weights as a committed checkpoint has them, and their model."""
    torch.manual_seed(1)
    model = MaskedAutoencoder(config).eval()
    run = PretrainConfig(run=Run(url="r"), data=Data(shards="s"), model=config, train=Train(steps=1))
    return Weights("here", model.state_dict(), model.shape, model.grid, {"config": to_dict(run)}), model


def tokens(model: MaskedAutoencoder, images: torch.Tensor) -> torch.Tensor:
    ids = torch.arange(model.patches).expand(len(images), -1)
    with torch.no_grad():
        return model.encode(normalise(patchify(images, model.shape.patch)), ids)


def pictures(config: Model) -> torch.Tensor:
    return torch.randint(0, 256, (2, 1, *config.size), dtype=torch.uint8)


@pytest.mark.parametrize("config", [SMALL, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize(("kind", "name"), [("mae", "w.pth"), ("safetensors", "w.safetensors")])
def test_reading_back_is_bit_exact_and_knows_the_shape(
    config: Model, kind: str, name: str, tmp_path: Path
) -> None:
    weights, model = held(config)
    export(weights, kind, str(tmp_path / name))
    again = read_weights(str(tmp_path / name))
    assert again.state.keys() == weights.state.keys()
    assert all(torch.equal(again.state[k], v) for k, v in weights.state.items())
    assert again.grid == model.grid
    assert torch.equal(
        tokens(autoencoder_from(again), pictures(config)[:1] * 0), tokens(model, pictures(config)[:1] * 0)
    )


@pytest.mark.parametrize("config", [SMALL, WIDE], ids=["square", "wide"])
def test_timm_builds_the_encoder_from_the_exported_folder(config: Model, tmp_path: Path) -> None:
    weights, model = held(config)
    export(weights, "hf", str(tmp_path / "folder"))
    theirs = timm.create_model(f"local-dir:{tmp_path}/folder", pretrained=True).eval()
    images = pictures(config)
    with torch.no_grad():
        found = theirs.forward_features(Preparation().normalise(images))
    torch.testing.assert_close(found, tokens(model, images), atol=1e-5, rtol=1e-5)
    for name, value in safetensors.torch.load_file(tmp_path / "folder" / "model.safetensors").items():
        assert torch.equal(value, weights.state[name])
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["num_features"] == 192


def test_timm_scales_images_to_the_size_that_embed_does() -> None:
    for side in sorted({*range(14, 1030, 14), *range(16, 1030, 16)}):
        assert math.floor(side / crop_pct(side)) == round(side * TEST_RESIZE), side
    assert crop_pct(224) == 0.875


@pytest.mark.slow
def test_timms_vit_large_loads_the_export_strictly_and_gives_the_same_features(tmp_path: Path) -> None:
    weights, model = held(Model(decoder_depth=1))
    export(weights, "timm", str(tmp_path / "timm.pth"))
    theirs = timm.create_model("vit_large_patch16_224", num_classes=0).eval()
    theirs.load_state_dict(torch.load(tmp_path / "timm.pth", weights_only=True), strict=True)
    images = pictures(model.config)[:1]
    with torch.no_grad():
        found = theirs.forward_features(Preparation().normalise(images))
    torch.testing.assert_close(found, tokens(model, images), atol=1e-5, rtol=1e-5)
