from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from retfound_dist.config.schema import Finetune
from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.evaluate.finetune.layer_decay import parameter_groups
from retfound_dist.model.backbones.timm_backbone import TimmBackbone
from retfound_dist.model.weights.containers import Candidate
from tests.model.backbones.families import FAMILIES, drawn

State = dict[str, Tensor]


def backbone(name: str, state: State, size: int | None = None) -> TimmBackbone:
    return TimmBackbone(name, lambda: [Candidate("", state, ())], size, url="w.pth")


def images(size: int, count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8)


def reference_features(model: nn.Module, x_B3HW: Tensor) -> Tensor:
    """By timm alone: the mean of the patches' tokens, or what the family gives its head."""
    with torch.no_grad():
        output = model.forward_features(x_B3HW)
        if output.ndim == 4 or model.global_pool == "avg":
            return model.forward_head(output, pre_logits=True)
        return output[:, model.num_prefix_tokens :].mean(1)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_timm_s_own_model_at_the_size_that_was_asked_for(name: str) -> None:
    size = FAMILIES[name]
    theirs = drawn(name, size)
    ours = backbone(name, theirs.state_dict(), size)
    x = ours.preparation.normalise(images(size))
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (theirs.pretrained_cfg["mean"], theirs.pretrained_cfg["std"])
    )
    expected = reference_features(theirs, x)
    with torch.no_grad():
        found = ours.pooled(ours.build().eval(), x)
    assert found.shape == (2, ours.facts.width) == expected.shape
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    gray = torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    torch.testing.assert_close(ours.preparation.normalise(gray)[0, :, :1, :1], (0.2 - mean) / std)


def renamed(state: State, *pairs: tuple[str, str]) -> State:
    out = {}
    for name, value in state.items():
        for new, old in pairs:
            name = name.replace(old, new)
        out[name] = value
    return out


def metas_dinov2(state: State) -> State:
    """DINOv2's repository: register_tokens, a position of the class token too, and a mask token."""
    out, width = renamed(state, ("register_tokens", "reg_token")), state["cls_token"].shape[-1]
    first = 0.1 * torch.randn(1, 1, width)
    # timm adds the class token's position to the token itself.
    out |= {"pos_embed": torch.cat([first, out["pos_embed"]], 1), "cls_token": out["cls_token"] - first}
    return {**out, "mask_token": torch.zeros(1, width)}


def metas_dinov3(state: State) -> State:
    """DINOv3's repository: storage_tokens, LayerScale as a module, a bias of qkv that is 0, RoPE's periods."""
    out = renamed(state, ("storage_tokens", "reg_token"), ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))
    width = out["cls_token"].shape[-1]
    biases = {f"blocks.{b}.attn.qkv.bias": torch.zeros(3 * width) for b in range(12)}
    return {**out, **biases, "mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(16)}


@pytest.mark.parametrize(
    ("name", "published"),
    [("vit_small_patch14_reg4_dinov2", metas_dinov2), ("vit_small_patch16_dinov3", metas_dinov3)],
)
def test_a_file_as_its_authors_published_it_gives_the_same_features(
    name: str, published: Callable[[State], State]
) -> None:
    size = FAMILIES[name]
    theirs = drawn(name, size)
    ours = backbone(name, published(theirs.state_dict()), size)
    assert ours.filling_state().state
    x = ours.preparation.normalise(images(size))
    with torch.no_grad():
        found = ours.pooled(ours.build().eval(), x)
    torch.testing.assert_close(found, reference_features(theirs, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "convnext_atto", "vit_tiny_patch16_224"])
def test_a_classifier_begins_with_equal_probabilities_and_every_weight_of_it_learns(name: str) -> None:
    size = FAMILIES[name]
    model = backbone(name, drawn(name, size).state_dict(), size).build(classes=3, drop_path=0.1, seed=1)
    x = torch.randn(4, 3, size, size)
    probabilities = model.eval()(x).softmax(1)
    torch.testing.assert_close(probabilities, torch.full((4, 3), 1 / 3), atol=0.02, rtol=0)
    groups = parameter_groups(model, Finetune(layer_decay=0.5))
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):  # the head starts near 0: the first step moves it, the second all below it
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "convnext_atto", "vit_small_patch14_reg4_dinov2"]
)
def test_layers_learn_at_the_rates_that_timm_gives_for_the_family(name: str) -> None:
    size = FAMILIES[name]
    model = TimmBackbone(name, None, size).build(classes=3)
    names = {id(p): n for n, p in model.named_parameters()}
    theirs = param_groups_layer_decay(model, 0.1, getattr(model, "no_weight_decay", set)(), layer_decay=0.5)
    expected = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in theirs for p in g["params"]}
    groups = parameter_groups(model, Finetune(layer_decay=0.5, weight_decay=0.1))
    found = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found.keys() == expected.keys() == set(names.values())
    assert {n: rate for n, (rate, _) in found.items()} == {n: rate for n, (rate, _) in expected.items()}
    spared = {"cls_token", "reg_token", "pos_embed"}
    for layer, (_, decay) in found.items():
        assert decay == (0.0 if layer in spared else expected[layer][1]), layer
    assert len({rate for rate, _ in found.values()}) > 4


def test_facts_are_counted_at_the_size_that_is_asked_for() -> None:
    small, large = (TimmBackbone("vit_tiny_patch16_224", None, size).facts for size in (112, 224))
    assert (small.tokens, large.tokens) == (50, 197)
    assert (small.width, small.family, small.image_size) == (192, "vit_tiny_patch16_224", 112)
    encoder = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    assert large.parameters == sum(p.numel() for p in encoder.parameters())
    # 12 blocks of 197 tokens: 24 D^2 + 4 T D operations a token, and the patches' projection
    expected = (12 * 197 * (24 * 192**2 + 4 * 197 * 192) + 2 * 196 * 768 * 192) / 1e9
    assert large.gflops == pytest.approx(expected, rel=1e-3)
    assert TimmBackbone("convnext_atto", None, 96).facts.tokens == 9
    assert TimmBackbone("vit_small_patch16_dinov3", None).image_size == 256


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(
        WeightsError, match=r"no model vit_small_patch16_dinov5: did you mean vit_small_patch16_dinov3"
    ):
        TimmBackbone("vit_small_patch16_dinov5", None)
    with pytest.raises(
        WeightsError, match=r"vit_small_patch16_224 has no weights with the tag mea: choose .*augreg"
    ):
        TimmBackbone("vit_small_patch16_224.mea", None)


@pytest.mark.parametrize(
    ("name", "size", "advice"),
    [("vit_tiny_patch16_224", 100, 96), ("vit_small_patch16_dinov3", 500, 496), ("hiera_tiny_224", 112, 224)],
)
def test_a_size_that_the_family_cannot_take_is_refused_by_name(name: str, size: int, advice: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"image_size={size} does not fit timm's {name} \(.*\): choose {advice}"
    ):
        TimmBackbone(name, None, size)


def test_a_file_of_another_family_is_refused_and_what_is_missing_is_named() -> None:
    dinov2 = drawn("vit_small_patch14_reg4_dinov2", 56).state_dict()
    plain = {name: value for name, value in dinov2.items() if name != "reg_token"}
    with pytest.raises(WeightsError, match=r"nothing for reg_token \(1 of \d+ tensors\)"):
        backbone("vit_small_patch14_reg4_dinov2", plain, 56).filling_state()
    tiny = drawn("vit_tiny_patch16_224").state_dict()
    with pytest.raises(
        WeightsError, match=r"w\.pth does not fit timm's vit_small_patch16_224: size mismatch"
    ):
        backbone("vit_small_patch16_224", tiny).filling_state()
    with pytest.raises(WeightsError, match=r"w\.pth does not fit timm's convnext_atto: .*stem\.0\.weight"):
        backbone("convnext_atto", drawn("resnet18").state_dict()).filling_state()


def test_a_fused_head_is_left_out() -> None:
    torch.manual_seed(0)
    whole = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    ours = backbone("vit_tiny_patch16_224", whole.state_dict(), 64)
    assert ours.filling_state().state
    model = ours.build(classes=3)
    assert model.get_classifier().weight.shape == (3, 192)


def test_a_family_without_stochastic_depth_is_built_without_it_and_says_so() -> None:
    assert TimmBackbone("convnext_atto", None, 64).takes_drop_path
    vgg = TimmBackbone("vgg11", None, 64)
    assert not vgg.takes_drop_path
    assert vgg.build(classes=3, drop_path=0.2) is not None
