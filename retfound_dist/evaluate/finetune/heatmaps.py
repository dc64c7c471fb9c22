"""Heat maps of a fine-tuned classifier: attention roll-out, and gradient times token.

Roll-out (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers") follows attention from the
pooled tokens back to the patches of the image. It does not depend on the class. Gradient times token
(Grad-CAM, Selvaraju et al. 2017, on the tokens of the last block) shows which patches raised the score of one
class. The mean token passes a layer norm before the head, so positive and negative contributions sum to zero
over the image: the map is relative to the average patch of the image.

Shapes: N images, S side, G patches along a side, L = G x G patches, T = 1 + L tokens, H heads, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.model.backbones.backbone import Backbone, spatial_positions


@dataclass(frozen=True)
class HeatMaps:
    """Two maps of patches for each image, (N, G, G)."""

    rollout: Floats | None
    """Share of the pooled mean that comes from each patch; the rest, to a sum of 1, is the class and register
    tokens'. None for a family without attention in each block."""
    gradient: Floats
    """How much each patch raised the logit of the given class, to first order; 0 where it lowered it."""


def heat_maps(model: Any, backbone: Backbone, images: Sequence[Pixels], classes: Sequence[int]) -> HeatMaps:
    """Maps of grey images (S, S), in fp32 and eval mode. `classes`: the class index of each gradient map."""
    device = next(model.parameters()).device
    model.eval()
    batch = backbone.preparation.normalise(torch.from_numpy(np.stack(images)[:, None]).to(device))
    with torch.no_grad(), attention_of(model) as attention:
        output = model.forward_features(batch)

    def square(map_NL: Tensor) -> Floats:
        side = math.isqrt(map_NL.shape[1])
        map_NGG: Floats = map_NL.double().cpu().numpy().reshape(len(images), side, side)
        return map_NGG

    prefix = getattr(model, "num_prefix_tokens", 0)
    flow = square(rollout(attention, prefix)) if attention else None
    return HeatMaps(flow, square(_gradient(model, output, classes)))


def rollout(attention: Sequence[Tensor], prefix: int = 1) -> Tensor:
    """(N, L): how much each patch adds to the mean of the patch tokens. `attention`: (N, T, T) of each block.

    `prefix`: class and register tokens, which come first. Each block counts half for its attention and
    half for its residual branch.
    """
    flow_TT = torch.eye(attention[0].shape[-1], device=attention[0].device)
    flow_NTT = flow_TT.expand_as(attention[0])
    for mean_NTT in attention:
        flow_NTT = (mean_NTT + flow_TT) / 2 @ flow_NTT
    return flow_NTT[:, prefix:, prefix:].mean(1)


@contextmanager
def attention_of(model: Any) -> Iterator[list[Tensor]]:
    """Collects the attention (N, T, T) of each block, averaged over its heads, while the model runs.

    The fused attention of timm never stores the weights. The plain one passes them to `attn_drop`.
    """
    attention: list[Tensor] = []
    layers = _attention_layers(model)
    fused_flags = [layer.fused_attn for layer in layers]

    def collect(_: Any, __: Any, weights_NHTT: Tensor) -> None:
        # Averaged at once: storing all heads of all blocks would need a multiple of the memory.
        attention.append(weights_NHTT.mean(1))

    hooks = [layer.attn_drop.register_forward_hook(collect) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield attention
    finally:
        for layer, fused_flag in zip(layers, fused_flags, strict=True):
            layer.fused_attn = fused_flag
        for hook in hooks:
            hook.remove()


def _attention_layers(model: Any) -> list[Any]:
    """The attention of every block, in order; none where a block has another kind, or attends in windows."""
    layers = [getattr(block, "attn", None) for block in getattr(model, "blocks", ())]
    # Plain blocks over all tokens, as in timm's ViT, EVA and DINOv3. Hiera's blocks see parts of the image.
    has_token_count = getattr(model, "num_prefix_tokens", None) is not None
    if has_token_count and all(
        hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop") for layer in layers
    ):
        return layers
    return []


def _gradient(model: Any, output: Tensor, classes: Sequence[int]) -> Tensor:
    """(N, L) of the last layer's tokens or map."""
    output = output.detach().requires_grad_()
    with torch.enable_grad():
        logits_NC = model.forward_head(output)
        class_logits = logits_NC[torch.arange(len(classes)), torch.tensor(classes)].sum()
        (gradient,) = torch.autograd.grad(class_logits, output)
    # The clamp is the ReLU of Grad-CAM: it removes patches that lowered the score.
    return spatial_positions(model, gradient * output).sum(-1).clamp(min=0).detach()
