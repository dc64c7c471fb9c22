from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from retfound_dist.config.schema import EvalData, Finetune
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult, finetune, predict
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.evaluate.finetune.layer_decay import parameter_groups
from retfound_dist.evaluate.finetune.trained_parameters import (
    check_methods,
    count_parameters,
    prepare_model,
    set_training_mode,
    trained_state,
)
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.opening import random_backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import encoder_shape
from tests.evaluate.inputs import class_folders
from tests.model.backbones.families import FAMILIES

OURS = PlainVit(None, encoder_shape("vit_demo_patch14"), 28)
FULL = Finetune(epochs=2, batch=8, warmup_epochs=1.0, base_lr=2e-2, layer_decay=0.9)
HEAD, LORA = replace(FULL, method="head"), replace(FULL, method="lora")
BACKBONES: dict[str, Backbone] = {"ours": OURS} | {
    name: random_backbone(f"timm:{name}", FAMILIES[name])
    for name in (
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3",
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
        "resnet18",
    )
}
SMALL = ("ours", "convnext_atto", "resnet18")
"""Families that train in seconds."""
every_family = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=list(BACKBONES))
small_family = pytest.mark.parametrize("backbone", [BACKBONES[name] for name in SMALL], ids=list(SMALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("labelled") / "set")


def labelled(folder: Path, backbone: Backbone) -> LabelledSet:
    return load_labelled_set(EvalData(path=str(folder)), backbone.image_size)


def train(data: LabelledSet, backbone: Backbone, recipe: Finetune) -> tuple[FinetuneResult, nn.Module]:
    model = backbone.build(len(data.classes), 0.1, 0)
    return finetune(model, backbone, data, recipe, 0, workers=0), model


def state_without_adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Under the names that the tensors had before adapters were inserted."""
    state = model.state_dict()
    return {name.replace(".base_layer.", "."): state[name] for name in state if ".lora_" not in name}


def is_head(name: str, model: Any) -> bool:
    classifier = {id(p) for p in model.get_classifier().parameters()}
    parameters = dict(model.named_parameters())
    return name.startswith("fc_norm.") or (name in parameters and id(parameters[name]) in classifier)


@small_family
def test_lora_moves_adapters_and_head_and_leaves_the_encoder_as_it_was(
    folder: Path, backbone: Backbone
) -> None:
    _, model = train(labelled(folder, backbone), backbone, LORA)
    before, after = backbone.build(3, 0.1, 0).state_dict(), state_without_adapters(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # Buffers, such as a batch norm's statistics, are among them.
    assert before.keys() == after.keys()
    assert {name for name in before if is_head(name, model)} == moved
    assert any(tensor.any() for name, tensor in model.state_dict().items() if ".lora_B." in name)


@small_family
def test_head_moves_nothing_but_the_head(folder: Path, backbone: Backbone) -> None:
    _, model = train(labelled(folder, backbone), backbone, HEAD)
    before, after = backbone.build(3, 0.1, 0).state_dict(), model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if is_head(name, model)}


def test_full_moves_every_parameter_and_a_batch_norms_statistics(folder: Path) -> None:
    backbone = BACKBONES["resnet18"]
    _, model = train(labelled(folder, backbone), backbone, FULL)
    before, after = backbone.build(3, 0.1, 0).state_dict(), model.state_dict()
    assert not [name for name in before if torch.equal(before[name], after[name])]


@every_family
def test_the_first_forward_pass_with_adapters_is_that_of_the_encoder(backbone: Backbone) -> None:
    plain, adapted = backbone.build(3, 0.0, 0).eval(), backbone.build(3, 0.0, 0)
    prepare_model(adapted, backbone, LORA, 0)
    torch.manual_seed(0)
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    with torch.no_grad():
        assert torch.equal(adapted.eval()(images), plain(images))


@every_family
def test_every_adapter_learns_and_has_the_rate_of_its_layer(backbone: Backbone) -> None:
    plain, adapted = backbone.build(3, 0.0, 0), backbone.build(3, 0.0, 0)
    prepare_model(adapted, backbone, LORA, 0)
    rates = lr_scales(plain, FULL)
    adapters = {name: rate for name, rate in lr_scales(adapted, LORA).items() if ".lora_" in name}
    assert adapters
    for name, rate in adapters.items():
        assert rate == rates[name.split(".lora_")[0] + ".weight"]
    # Random weights have a head near zero, LayerScale of 1e-5, and zero scales at the end of a ResNet's branch.
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapted(torch.randn(2, 3, backbone.image_size, backbone.image_size)).square().sum().backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if ".lora_B." in name}
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]


def lr_scales(model: nn.Module, recipe: Finetune) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: group["lr_scale"] for group in parameter_groups(model, recipe) for p in group["params"]
    }


def test_numbers_of_trained_parameters_follow_the_formula() -> None:
    shape, classes, rank = OURS.shape, 3, 4
    head = shape.width * classes + classes + 2 * shape.width  # with fc_norm
    model = OURS.build(classes)
    everything = sum(p.numel() for p in model.parameters())
    assert count_parameters(model) == (everything, everything)
    prepare_model(model, OURS, HEAD, 0)
    assert count_parameters(model) == (head, everything)
    model = OURS.build(classes)
    prepare_model(model, OURS, replace(LORA, lora_rank=rank), 0)
    # qkv has 3 x width outputs, proj has width.
    adapters = shape.depth * rank * ((shape.width + 3 * shape.width) + (shape.width + shape.width))
    assert count_parameters(model) == (head + adapters, everything + adapters)


def test_a_convolutions_adapter_has_the_kernel_in_its_first_half() -> None:
    backbone = BACKBONES["resnet18"]
    model = backbone.build(3)
    prepare_model(model, backbone, replace(LORA, lora_targets=("layer1.0.conv1",)), 0)
    trained, _ = count_parameters(model)
    assert trained == (512 * 3 + 3) + 8 * 64 * 3 * 3 + 64 * 8


def test_full_changes_neither_the_model_nor_the_random_state() -> None:
    model, state = OURS.build(3), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepare_model(model, OURS, FULL, 0)
    set_training_mode(model, FULL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert trained_state(model).keys() == before.keys()


def test_drop_path_acts_in_lora_and_not_in_head() -> None:
    images = torch.randn(8, 3, 28, 28)
    outputs = {}
    for recipe in (HEAD, LORA):
        model = OURS.build(3, drop_path=0.5)
        prepare_model(model, OURS, recipe, 0)
        set_training_mode(model, recipe)
        outputs[recipe.method] = [model.forward_features(images) for _ in range(2)]  # type: ignore[operator]
    assert torch.equal(*outputs["head"])
    assert not torch.equal(*outputs["lora"])


def test_the_kept_state_holds_no_frozen_tensor_and_is_that_of_the_chosen_epoch(folder: Path) -> None:
    data = labelled(folder, OURS)
    for recipe in (HEAD, LORA):
        result, model = train(data, OURS, recipe)
        kept = trained_state(model)
        assert {name for name in kept if not is_head(name, model)} == {
            name for name in model.state_dict() if ".lora_" in name
        }
        assert (predict(model, OURS, data.parts["test"], recipe) == result.probabilities).all()
        assert (result.trained_parameters, result.parameters) == count_parameters(model)


def test_lora_and_head_depend_on_the_seed_alone(folder: Path) -> None:
    data = labelled(folder, OURS)
    for recipe in (HEAD, LORA):
        first, _ = train(data, OURS, recipe)
        torch.manual_seed(99)
        second, _ = train(data, OURS, recipe)
        assert (first.probabilities == second.probabilities).all()
    drawn = []
    for seed in (0, 1):
        model = OURS.build(3)
        prepare_model(model, OURS, LORA, seed)
        drawn.append(model.state_dict()["blocks.0.attn.qkv.lora_A.default.weight"])
    assert not torch.equal(*drawn)


def test_scale_rank_and_dropout_reach_the_adapters() -> None:
    model: Any = OURS.build(3)
    recipe = replace(LORA, lora_rank=2, lora_alpha=3.0, lora_dropout=0.25, lora_targets=("mlp.fc1",))
    prepare_model(model, OURS, recipe, 0)
    layer = model.blocks[0].mlp.fc1
    assert layer.scaling["default"] == 1.5
    assert layer.lora_dropout["default"].p == 0.25
    assert layer.lora_A["default"].weight.shape[0] == 2


def test_heat_maps_see_a_model_with_adapters(folder: Path) -> None:
    data = labelled(folder, OURS)
    _, model = train(data, OURS, LORA)
    maps = heat_maps(model, OURS, data.parts["test"].images[:2], [0, 1])
    assert maps.rollout is not None
    assert maps.rollout.shape == maps.gradient.shape == (2, 2, 2)


def test_a_recipe_that_is_only_tried_is_checked_before_training() -> None:
    check_methods(OURS, FULL)
    check_methods(OURS, replace(FULL, lora_targets=("nothing",)))
    recipe = replace(FULL, try_recipes=({"method": "head"}, {"method": "lora", "lora_targets": ["nothing"]}))
    with pytest.raises(ConfigError, match=r"finetune\.lora_targets: 'nothing' is no layer of vit_demo"):
        check_methods(OURS, recipe)


def test_a_missing_peft_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "peft", None)
    wanted = 'finetune.method="lora" needs peft: pip install \'retfound-dist[peft]\', or use "full" or "head"'
    for check in (lambda: check_methods(OURS, LORA), lambda: prepare_model(OURS.build(3), OURS, LORA, 0)):
        with pytest.raises(ConfigError) as caught:
            check()
        assert str(caught.value) == wanted
    check_methods(OURS, HEAD)
