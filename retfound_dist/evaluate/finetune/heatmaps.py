"""Heat maps of a fine-tuned classifier: attention roll-out, and gradient times token.

Roll-out (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers") follows attention from
the patches that are pooled back to those of the image, whatever class is asked for. Gradient times token
(Grad-CAM, Selvaraju et al. 2017, on the last block's tokens) says which patches raised the score of one
class. As the tokens' mean passes a layer norm before the head, what speaks for a class and what speaks
against it sum to zero over the image: the map is relative to the image's own average patch.

Shapes: N images, S side, G patches along a side, L = G x G patches, T = 1 + L tokens, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from retfound_dist.evaluate.data.gray_pixels import Pixels
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.model.vit import normalise_images


@dataclass(frozen=True)
class HeatMaps:
    """Two maps of patches for each image, (N, G, G)."""

    rollout: Floats
    """Share of the pooled mean that flows from each patch; the class token has what is missing to 1."""
    gradient: Floats
    """How much each patch raised the asked class's logit, to first order; 0 where it lowered it."""


def heat_maps(model: VisionTransformer, images: Sequence[Pixels], classes: Sequence[int]) -> HeatMaps:
    """Maps of grey images (S, S), the gradient's for one class index each; in fp32 and eval mode."""
    device = next(model.parameters()).device
    model.eval()
    batch = normalise_images(torch.from_numpy(np.stack(images)[:, None]).to(device))
    with torch.no_grad(), attention_of(model) as attention:
        tokens_NTD = model.forward_features(batch)
    side = images[0].shape[0] // model.patch_embed.patch_size[0]

    def square(map_NL: Tensor) -> Floats:
        map_NGG: Floats = map_NL.double().cpu().numpy().reshape(len(images), side, side)
        return map_NGG

    return HeatMaps(square(rollout(attention)), square(_gradient(model, tokens_NTD, classes)))


def rollout(attention: Sequence[Tensor]) -> Tensor:
    """(N, L): what the mean of patch tokens takes from each patch; `attention` (N, T, T) of each block.

    A block passes on half by its attention, half as it is, for the residual branch.
    """
    flow_TT = torch.eye(attention[0].shape[-1], device=attention[0].device)
    flow_NTT = flow_TT.expand_as(attention[0])
    for mean_NTT in attention:
        flow_NTT = (mean_NTT + flow_TT) / 2 @ flow_NTT
    return flow_NTT[:, 1:, 1:].mean(1)


@contextmanager
def attention_of(model: VisionTransformer) -> Iterator[list[Tensor]]:
    """Collects the attention (N, T, T) of each block, the mean of its heads, while the model runs.

    timm's fused attention never holds its weights; its plain one hands them to `attn_drop`.
    """
    attention: list[Tensor] = []
    layers = [block.attn for block in model.blocks]
    fused = [layer.fused_attn for layer in layers]

    def collect(_: Any, __: Any, weights_NHTT: Tensor) -> None:
        # The mean is taken at once: all heads of all blocks would take as many times the memory.
        attention.append(weights_NHTT.mean(1))

    hooks = [layer.attn_drop.register_forward_hook(collect) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield attention
    finally:
        for layer, was in zip(layers, fused, strict=True):
            layer.fused_attn = was
        for hook in hooks:
            hook.remove()


def _gradient(model: VisionTransformer, tokens_NTD: Tensor, classes: Sequence[int]) -> Tensor:
    tokens_NTD = tokens_NTD.detach().requires_grad_()
    with torch.enable_grad():
        logits_NC = model.forward_head(tokens_NTD)
        asked = logits_NC[torch.arange(len(classes)), torch.tensor(classes)].sum()
        (slope_NTD,) = torch.autograd.grad(asked, tokens_NTD)
    # The clamp is the ReLU of Grad-CAM: patches that speak against the class are not what is asked for.
    return (slope_NTD * tokens_NTD).sum(-1)[:, 1:].clamp(min=0).detach()
