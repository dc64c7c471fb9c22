"""One encoder in the layouts of others' training code: the same tensors, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from retfound_dist.cli import main
from retfound_dist.config.schema import EvalModel, Model
from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.vit import build_encoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from tests.evaluate.inputs import TINY, class_folders

CONFIG = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
State = dict[str, torch.Tensor]
torch.manual_seed(3)
FULL: State = MaskedAutoencoder(CONFIG).state_dict()
ENCODER: State = {k: v for k, v in FULL.items() if not k.startswith(("decoder", "mask_token"))}
BLANK: State = {k: torch.zeros_like(v) for k, v in ENCODER.items()}


def under(prefix: str, state: State = ENCODER) -> State:
    return {prefix + name: value for name, value in state.items()}


def within(name: str, word: str) -> str:
    return name.replace("blocks.3.", f"blocks.3.{word}.")


CONTAINERS: dict[str, tuple[Any, str]] = {
    "plain": (ENCODER, ""),
    "MAE's": ({"model": FULL, "epoch": 3}, "model"),
    "DDP": ({"state_dict": under("module.")}, "state_dict"),
    "compiled DDP": (under("_orig_mod.module."), ""),
    "DDP of compiled": (under("module._orig_mod."), ""),
    "lightning": ({"state_dict": under("net._orig_mod.")}, "state_dict.net"),
    "FSDP": (
        {within(f"_fsdp_wrapped_module.{k}", "_checkpoint_wrapped_module"): v for k, v in ENCODER.items()},
        "",
    ),
    "DeepSpeed": ({"module": FULL, "dp_world_size": 8}, "module"),
    "DINO": (
        {"student": under("module.backbone.", BLANK), "teacher": under("backbone.")},
        "teacher.backbone",
    ),
    "DINOv2": (
        {"model": under("student.backbone.", BLANK) | under("teacher.backbone.")},
        "model.teacher.backbone",
    ),
    "EMA": ({"model": BLANK, "model_ema": ENCODER}, "model_ema"),
    "timm's EMA": ({"state_dict": BLANK, "state_dict_ema": ENCODER}, "state_dict_ema"),
    "nested": ({"model": {"encoder": ENCODER, "decoder": {"x": torch.ones(1)}}}, "model.encoder"),
    "I-JEPA": ({"encoder": under("module.", BLANK), "target_encoder": under("module.")}, "target_encoder"),
    "optimizer": (
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "model": under("mae.")},
        "model.mae",
    ),
    "parameters": ({k: torch.nn.Parameter(v) for k, v in ENCODER.items()}, ""),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_whole_encoder_is_found_and_its_place_is_named(name: str, tmp_path: Path) -> None:
    tree, part = CONTAINERS[name]
    path = str(tmp_path / "w.pth")
    torch.save(tree, path)
    weights = read_weights(path)
    assert all(torch.equal(weights.state[key], value) for key, value in ENCODER.items())
    assert weights.part == part
    assert (f"({part})" in weights.place) == bool(part)
    vit = build_encoder(weights.shape, 28)
    said = load_into(vit, weights, (2, 2)).summary(weights)
    assert f"from {weights.place}" in said
    start = open_starting_weights(path, EvalModel())
    assert start.describe()["part"] == part
    assert (part in start.remark) if part else start.remark == ""


def test_a_decoder_beside_an_encoder_s_prefix_is_taken_with_it(tmp_path: Path) -> None:
    decoder = {k: v for k, v in FULL.items() if k not in ENCODER}
    torch.save(under("encoder.") | decoder, tmp_path / "w.pth")
    assert read_weights(str(tmp_path / "w.pth")).state.keys() == FULL.keys()


def test_safetensors_with_prefixes_are_read_alike(tmp_path: Path) -> None:
    safetensors.torch.save_file(under("module.backbone."), tmp_path / "w.safetensors")
    weights = read_weights(str(tmp_path / "w.safetensors"))
    assert (weights.part, weights.state.keys()) == ("backbone", ENCODER.keys())


def test_the_small_encoder_of_moco_v3_has_the_heads_of_its_paper(tmp_path: Path) -> None:
    small = MaskedAutoencoder(
        Model(name="vit_small_patch16", image_size=32, decoder_width=32, decoder_depth=1, decoder_heads=2)
    )
    state = {k: v for k, v in small.state_dict().items() if not k.startswith(("decoder", "mask_token"))}
    torch.save({"state_dict": under("module.momentum_encoder.", state)}, tmp_path / "moco.pth")
    torch.save({"teacher": under("backbone.", state)}, tmp_path / "dino.pth")
    moco, dino = (read_weights(str(tmp_path / name)) for name in ("moco.pth", "dino.pth"))
    assert (moco.shape.heads, dino.shape.heads) == (12, 6)
    assert "12 heads" in moco.notes[-1]


def test_of_two_whole_encoders_one_is_taken_the_other_can_be_asked_for_and_is_another(tmp_path: Path) -> None:
    path = str(tmp_path / "w.pth")
    torch.save({"state_dict": under("encoder_q.") | under("encoder_k.", BLANK)}, path)
    weights = read_weights(path)
    assert weights.part == "state_dict.encoder_q"
    assert f"not state_dict.encoder_k: give '{path}#state_dict.encoder_k' for the other" in weights.notes[0]
    assert weights.notes[0] in open_starting_weights(path, EvalModel()).remark
    other = read_weights(f"{path}#state_dict.encoder_k")
    assert not any(value.any() for value in other.state.values())
    assert other.notes == ()
    one, other = (
        open_starting_weights(where, EvalModel()).identity for where in (path, f"{path}#state_dict.encoder_k")
    )
    assert one != other
    with pytest.raises(
        WeightsError, match=r"no encoder under nothing: its parts are state_dict\.encoder_q, "
    ):
        read_weights(f"{path}#nothing")


def test_two_alike_are_no_choice(tmp_path: Path) -> None:
    torch.save({"model": ENCODER, "model_ema": dict(ENCODER)}, tmp_path / "w.pth")
    assert read_weights(str(tmp_path / "w.pth")).notes == ()


def less(*names: str) -> State:
    return {k: v for k, v in ENCODER.items() if not k.startswith(names)}


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> State:
    return ENCODER | {name: change(ENCODER[name])}


HF = {"vit.embeddings.patch_embeddings.projection.weight": torch.ones(2, 3, 4, 4)}
BROKEN: dict[str, tuple[Any, str]] = {
    "no positions": ({"model": less("pos_embed")}, "under model: it has no positions"),
    "a layer less": (less("blocks.2.attn.proj"), r"blocks\.2\.attn\.proj\.weight, .* missing"),
    "no norm": (less("norm."), r"norm\.weight, norm\.bias missing"),
    "registers": (
        ENCODER | {"register_tokens": torch.ones(1)},
        "register_tokens, which this ViT does not have",
    ),
    "six channels": (
        changed("patch_embed.proj.weight", lambda w: torch.cat([w, w], 1)),
        r"shape \(192, 6, 14, 14\)",
    ),
    "int8": ({k: v.to(torch.int8) for k, v in ENCODER.items()}, "not quantised"),
    "Hugging Face": (HF, "Hugging Face transformers' names"),
    "ResNet": ({"layer1.0.conv1.weight": torch.ones(1)}, "convolutional network"),
    "other names": ({"model": {f"blocks_{k}": v for k, v in ENCODER.items()}}, "holds no ViT encoder"),
    "nothing": ({}, "holds no ViT encoder"),
    "a list": ([ENCODER], "holds a list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_missing_is_said_before_anything_is_done_with_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, said = BROKEN[name]
    torch.save(tree, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=said):
        open_starting_weights(str(tmp_path / "w.pth"), EvalModel())
    assert (
        main(["export", str(tmp_path / "w.pth"), "--format", "mae", "--out", str(tmp_path / "out.pth")]) == 2
    )
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out.pth").exists()


def test_a_fine_tuned_classifier_goes_through_the_whole_of_evaluate_and_says_what_stands_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MAE's and RETFound's fine-tuned files hold `fc_norm` and no `norm`."""
    tuned = less("norm.") | {f"fc_norm.{kind}": ENCODER[f"norm.{kind}"] for kind in ("weight", "bias")}
    tuned |= {"head.weight": torch.ones(5, 192), "head.bias": torch.zeros(5)}
    path = str(tmp_path / "finetuned.pth")
    torch.save({"model": tuned, "epoch": 3}, path)
    config = ["evaluate", "configs/demo/evaluate.toml", f"checkpoint={path}", *TINY, "finetune.epochs=1"]
    data = class_folders(tmp_path / "set")
    assert main([*config, f"data.path={data}", f"out.url={tmp_path / 'out'}", "seeds=[0]"]) == 0
    said = capsys.readouterr().out
    assert f"weights: {path} (model); it has no norm" in said
    assert "its fc_norm is used instead" in (tmp_path / "out/metrics.json").read_text()
    model = MaskedAutoencoder(CONFIG)
    load_into(model, read_weights(path), (2, 2))
    assert torch.equal(model.norm.weight, ENCODER["norm.weight"])
