from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from retfound_dist.config.schema import Model
from retfound_dist.errors import WeightsError
from retfound_dist.io import storage
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.containers import State
from retfound_dist.model.weights.tensor_file import read_tensor_file
from retfound_dist.model.weights.weight_files import read_weights

MODEL = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=1, decoder_heads=2)


def test_tensors_config_and_sha256_of_both_formats(tmp_path: Path) -> None:
    config = {"model": {"name": "x", "image_size": 224}}
    safe, pickled = tmp_path / "w.safetensors", tmp_path / "w.pth"
    safetensors.torch.save_file({"a": torch.ones(2)}, safe, {"config": json.dumps(config)})
    torch.save({"model": {"a": torch.ones(2)}, "config": config}, pickled)
    first, second = read_tensor_file(str(safe)), read_tensor_file(str(pickled))
    assert first.tree["a"].tolist() == second.tree["model"]["a"].tolist() == [1, 1]
    assert first.config == second.config == config
    assert first.sha256 == storage.file_info(str(safe)).sha256


FOREIGN_CONFIGS = (
    {"model_type": "vit", "architectures": ["ViTMAEModel"], "hidden_size": 192},
    {"model": "vit"},
    {"model": {"_target_": "models.ViT", "width": 192}},
    [1],
    None,
)


@pytest.fixture
def encoder() -> State:
    torch.manual_seed(1)
    return MaskedAutoencoder(MODEL).state_dict()


@pytest.mark.parametrize(
    "text", [*map(json.dumps, FOREIGN_CONFIGS), '"vit"', '{"model": ', "", "model: vit", "[" * 9999]
)
def test_a_header_whose_config_is_not_ours_is_a_foreign_file(
    text: str, encoder: State, tmp_path: Path
) -> None:
    path = str(tmp_path / "w.safetensors")
    safetensors.torch.save_file(encoder, path, {"config": text})
    assert read_tensor_file(path).config == {}
    assert (read_weights(path).shape.width, read_weights(path).grid) == (192, (4, 4))


@pytest.mark.parametrize("config", [*FOREIGN_CONFIGS, "vit", json.dumps({"model": "vit"})])
def test_the_same_configs_in_a_pickled_file_are_foreign_too(
    config: object, encoder: State, tmp_path: Path
) -> None:
    path = str(tmp_path / "w.pth")
    torch.save({"model": encoder, "config": config}, path)
    assert read_tensor_file(path).config == {}
    assert (read_weights(path).shape.width, read_weights(path).grid) == (192, (4, 4))


def test_a_remote_file_is_read_and_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2)}, path)
    storage.write_bytes("memory://tensors/w.pth", path.read_bytes())
    assert read_tensor_file("memory://tensors/w.pth").tree["a"].shape == (2,)
    with pytest.raises(WeightsError, match="there are no weights at"):
        read_tensor_file(str(tmp_path / "none.pth"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        read_tensor_file(str(tmp_path / "cut.safetensors"))
