from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from retfound_dist.errors import WeightsError
from retfound_dist.model.weights.vit_relatives import RelativeEncoder, read_relative
from tests.model.backbones.families import drawn
from tests.model.backbones.relatives import drawn_mirage, drawn_octcube, drawn_pixio, transformers_pixio

State = dict[str, torch.Tensor]


def read(tree: Any) -> RelativeEncoder:
    encoder = read_relative(tree, "w.pth")
    assert encoder is not None
    return encoder


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


def test_pixio_is_known_by_its_class_tokens_in_every_published_form() -> None:
    state = drawn_pixio()
    bare = read(state)
    assert (bare.variant.family, bare.variant.prefix_tokens, bare.grid) == ("Pixio", 8, (4, 4))
    assert bare.state["reg_token"].shape == (1, 7, 128)
    pretraining = {"model": {**state, "decoder_embed.weight": torch.zeros(8, 128)}, "epoch": 3}
    for tree in (pretraining, transformers_pixio(state), {"module." + k: v for k, v in state.items()}):
        other = read(tree)
        assert other.variant == bare.variant
        assert other.state.keys() == bare.state.keys()
        assert all(torch.equal(other.state[name], value) for name, value in bare.state.items())


def test_pixio_has_as_many_heads_as_its_paper_says() -> None:
    def heads(width: int) -> int:
        blocks = {
            f"blocks.0.{layer}.{kind}": torch.empty(shape, device="meta")
            for layer, rows, columns in (
                ("attn.qkv", 3, 1),
                ("attn.proj", 1, 1),
                ("mlp.fc1", 4, 1),
                ("mlp.fc2", 1, 4),
            )
            for kind, shape in (("weight", (rows * width, columns * width)), ("bias", (rows * width,)))
        }
        norms = {
            f"{name}.{kind}": torch.empty(width, device="meta")
            for name in ("blocks.0.norm1", "blocks.0.norm2", "norm")
            for kind in ("weight", "bias")
        }
        rest = {
            "cls_token": torch.empty(1, 8, width, device="meta"),
            "pos_embed": torch.empty(1, 24, width, device="meta"),
            "patch_embed.proj.weight": torch.empty(width, 3, 16, 16, device="meta"),
            "patch_embed.proj.bias": torch.empty(width, device="meta"),
        }
        return read(blocks | norms | rest).shape.heads

    assert [heads(width) for width in (768, 1024, 1280, 1536, 3072)] == [12, 16, 16, 24, 32]


def test_mirage_is_read_as_its_encoder_of_bscans_from_both_published_files() -> None:
    state = drawn_mirage()
    released = read({"model": state, "args": object()})
    assert (released.variant.family, released.shape.patch, released.grid) == ("MIRAGE", 32, (4, 4))
    assert (released.mean, released.std, released.interpolation) == ((0.0,) * 3, (1.0,) * 3, "bilinear")
    hub = read({f"model.{name}": value for name, value in without(state, "output_adapters.x").items()})
    assert all(torch.equal(hub.state[name], value) for name, value in released.state.items())


def test_octcube_is_read_as_its_encoder_of_single_bscans() -> None:
    encoder = read({"model": drawn_octcube()})
    assert (encoder.variant.family, encoder.variant.last_skip, encoder.grid) == ("OCTCube", False, (4, 4))
    assert encoder.state["patch_embed.proj.weight"].shape == (128, 3, 16, 16)


def test_a_family_that_cannot_be_used_is_refused_by_its_name_with_the_reason() -> None:
    octcube = without(drawn_octcube(), "high_res_patch_embed.proj.weight", "high_res_patch_embed.proj.bias")
    with pytest.raises(WeightsError, match=r"w\.pth holds OCTCube's 3-D encoder.* no high_res_patch_embed"):
        read({"model": octcube})
    slo = {name: value for name, value in drawn_mirage().items() if "bscan" not in name}
    with pytest.raises(WeightsError, match=r"w\.pth holds a MultiMAE for slo, not MIRAGE"):
        read({"model": slo})
    with pytest.raises(
        WeightsError, match=r"w\.pth holds Pixio's encoder, which cannot be used: norm\.bias miss"
    ):
        read(without(drawn_pixio(), "norm.bias"))
    square = {**drawn_pixio(), "pos_embed": torch.zeros(1, 8 + 15, 128)}
    with pytest.raises(WeightsError, match="Pixio's encoder with positions for 15 patches: no square"):
        read(square)


def test_other_networks_are_not_taken_for_one_of_them() -> None:
    for name, size in (("vit_tiny_patch16_224", 64), ("vit_small_patch14_reg4_dinov2", 56), ("resnet18", 64)):
        assert read_relative(drawn(name, size).state_dict(), "w.pth") is None


def test_the_part_that_the_user_names_is_read() -> None:
    tree = {"a": drawn_pixio(), "b": drawn_mirage()}
    found = {part: read_relative(tree, "w.pth", part) for part in ("a", "b", "c")}
    families = [encoder.variant.family if encoder else "" for encoder in found.values()]
    assert families == ["Pixio", "MIRAGE", ""]
    assert re.match("b", read_relative(tree, "w.pth", "b").part)  # type: ignore[union-attr]
