"""Which layers of an image encoder can have a low-rank adapter (LoRA), and which get one by default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from retfound_dist.errors import ConfigError
from retfound_dist.model.backbones.backbone import Backbone

# The names that timm's families give to the linear layers of an attention.
_ATTENTION = re.compile(r"attn[^.]*\.(to_)?(q|k|v|qk|kv|qkv|q_proj|k_proj|v_proj|proj|o_proj|out_proj)(\.|$)")
# The part of a name after its last number, unless nothing but that number is left.
_BLOCK_PREFIX = re.compile(r"^(.*\.)?\d+\.(?=.*[^\d.])")


def adapter_targets(backbone: Backbone, names: Sequence[str] = ()) -> list[str]:
    """Full names of the layers that get an adapter.

    `names` are ends of layers' names. Without them: the layers of the attention (queries, keys, values,
    projection), as in the LoRA paper, or all that can have an adapter where there is no attention.
    ConfigError if a name matches no layer that can have an adapter.
    """
    layers = adaptable_layers(backbone)
    for name in names:
        if not any(_matches(layer, name) for layer in layers):
            layer_names = ", ".join(dict.fromkeys(_BLOCK_PREFIX.sub("", layer) for layer in layers)) or "none"
            raise ConfigError(
                f"finetune.lora_targets: {name!r} is no layer of {backbone.family} that can have an adapter: "
                f"choose among {layer_names}"
            )
    if names:
        return [layer for layer in layers if any(_matches(layer, name) for name in names)]
    if not layers:
        raise ConfigError(
            f'finetune.method="lora": no layer of {backbone.family} can have an adapter: use "full" or "head"'
        )
    return [layer for layer in layers if _ATTENTION.search(layer)] or layers


def adaptable_layers(backbone: Backbone) -> list[str]:
    """Names of all layers of the encoder that can have an adapter, in the order of the model."""
    model: Any = backbone.skeleton().eval()
    layers = {name: layer for name, layer in model.named_modules() if _is_supported(layer)}
    called: set[str] = set()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    # Some families read a layer's weight and never call the layer (BEiT's and Swin v2's qkv). An adapter
    # would then have no effect, without any error.
    with torch.no_grad():
        model(torch.zeros(1, 3, backbone.image_size, backbone.image_size, device="meta"))
    return [name for name in layers if name in called]


def _is_supported(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    # peft makes the adapter's convolution from the class, stride and padding alone. So classes that change
    # their weights, and dilated convolutions, would get another function; groups must divide the rank.
    return type(layer) is nn.Conv2d and layer.groups == 1 and set(layer.dilation) == {1}


def _matches(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")
