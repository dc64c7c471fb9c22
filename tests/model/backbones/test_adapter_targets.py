from __future__ import annotations

import pytest

from retfound_dist.errors import ConfigError
from retfound_dist.model.backbones.adapter_targets import adaptable_layers, adapter_targets
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.opening import random_backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import encoder_shape
from tests.model.backbones.families import FAMILIES

OURS = PlainVit(None, encoder_shape("vit_demo_patch14"), 28)


def family(name: str) -> Backbone:
    return random_backbone(f"timm:{name}", FAMILIES[name])


@pytest.mark.parametrize(
    "backbone", [OURS, family("vit_small_patch14_reg4_dinov2"), family("vit_tiny_patch16_224")]
)
def test_a_vit_has_adapters_at_the_two_linear_layers_of_each_attention(backbone: Backbone) -> None:
    depth = len(backbone.skeleton().blocks)  # type: ignore[arg-type]
    wanted = [f"blocks.{i}.attn.{name}" for i in range(depth) for name in ("qkv", "proj")]
    assert adapter_targets(backbone) == wanted


def test_a_pooling_by_attention_belongs_to_the_attention() -> None:
    names = {name for name in adapter_targets(family("vit_base_patch16_siglip_224")) if "attn_pool" in name}
    assert names == {"attn_pool.q", "attn_pool.kv", "attn_pool.proj"}


def test_a_convolutional_family_has_adapters_at_all_layers_but_those_with_groups() -> None:
    convnext = adapter_targets(family("convnext_atto"))
    assert "stem.0" in convnext
    assert "stages.3.blocks.1.mlp.fc2" in convnext
    assert not [name for name in convnext if "conv_dw" in name]
    assert len(adapter_targets(family("resnet18"))) == 20


def test_a_layer_whose_weight_is_read_without_a_call_gets_no_adapter() -> None:
    """It would never learn: the model does not call the adapter's forward."""
    assert {name.split(".")[-1] for name in adapter_targets(family("eva02_tiny_patch14_224"))} == {"proj"}
    with pytest.raises(ConfigError, match=r"'qkv' is no layer of eva02_tiny_patch14_224 that can have an"):
        adapter_targets(family("eva02_tiny_patch14_224"), ["qkv"])


def test_names_are_ends_of_whole_parts_of_a_layers_name() -> None:
    assert adapter_targets(OURS, ["mlp.fc1", "blocks.0.attn.qkv"]) == [
        "blocks.0.attn.qkv", *(f"blocks.{i}.mlp.fc1" for i in range(6)),
    ]  # fmt: skip
    # `c1` is the end of a word in `fc1`, but no layer.
    with pytest.raises(ConfigError, match="'c1' is no layer"):
        adapter_targets(OURS, ["c1"])


def test_a_name_without_a_layer_is_answered_by_the_names_of_layers() -> None:
    with pytest.raises(ConfigError) as caught:
        adapter_targets(OURS, ["attn.qkv", "query"])
    assert str(caught.value) == (
        "finetune.lora_targets: 'query' is no layer of vit_demo_patch14 that can have an adapter: choose among "
        "patch_embed.proj, attn.qkv, attn.proj, mlp.fc1, mlp.fc2"
    )
    with pytest.raises(ConfigError, match=r"choose among conv1, conv2, downsample\.0$"):
        adapter_targets(family("resnet18"), ["qkv"])


def test_a_family_without_such_layers_is_refused() -> None:
    # BiT standardises the weights of its convolutions.
    bit = random_backbone("timm:resnetv2_50x1_bit", 64)
    assert adaptable_layers(bit) == []
    with pytest.raises(ConfigError, match=r'no layer of resnetv2_50x1_bit can have an adapter: use "full"'):
        adapter_targets(bit)
