"""Builds timm's ViT as a classifier (mean of patches, `fc_norm`, a linear head) and as a bare encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from retfound_dist.model.mae import NORM_EPS, EncoderShape

HEAD_STD = 2e-5
"""Standard deviation of the head's initial weights (RETFound, fine-tuning)."""


@dataclass(frozen=True)
class VitVariant:
    """How a published ViT differs from MAE's; as it stands, not at all."""

    family: str = ""
    """Name of the project, such as `Pixio`; empty: a plain ViT."""
    prefix_tokens: int = 1
    """Class tokens, each with a position of its own."""
    last_skip: bool = True
    """Whether the last block adds its input to the output of its MLP."""


PLAIN = VitVariant()


class UnskippedBlock(Block):  # type: ignore[misc]  # timm has no types
    """A last block whose output is the output of its MLP alone (OCTCube)."""

    def forward(self, x_BTD: Tensor, **options: Any) -> Tensor:
        """(B, T, D) to (B, T, D); `options` are those of attention."""
        x_BTD = x_BTD + self.drop_path1(self.attn(self.norm1(x_BTD), **options))
        mlp_BTD: Tensor = self.mlp(self.norm2(x_BTD))
        return mlp_BTD


def build_classifier(
    shape: EncoderShape,
    image_size: int,
    classes: int,
    drop_path: float = 0.0,
    variant: VitVariant = PLAIN,
) -> VisionTransformer:
    """A ViT that maps normalised images (B, 3, H, W) to logits (B, classes)."""
    model = _make_vit(
        shape, image_size, variant, num_classes=classes, global_pool="avg", drop_path_rate=drop_path
    )
    start_head(model.head)
    return model


def start_head(head: nn.Module | None) -> None:
    """Draw a linear head near zero, so that fine-tuning begins with equal probabilities for all classes."""
    if isinstance(head, nn.Linear):
        nn.init.trunc_normal_(head.weight, std=HEAD_STD)
        nn.init.zeros_(head.bias)


def build_encoder(shape: EncoderShape, image_size: int, variant: VitVariant = PLAIN) -> VisionTransformer:
    """A ViT without a head: `forward_features` returns normed tokens (B, 1 + L, D), class token first."""
    return _make_vit(shape, image_size, variant, num_classes=0, global_pool="token")


def _make_vit(
    shape: EncoderShape, image_size: int, variant: VitVariant, drop_path_rate: float = 0.0, **options: Any
) -> VisionTransformer:
    """timm's ViT of this shape, with the deviations of `variant`; `options`: more of timm's arguments."""
    norm_layer = partial(nn.LayerNorm, eps=NORM_EPS)
    model = VisionTransformer(
        img_size=image_size,
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        norm_layer=norm_layer,
        # timm's register tokens have positions too: they are further class tokens.
        reg_tokens=variant.prefix_tokens - 1,
        drop_path_rate=drop_path_rate,
        **options,
    )
    if not variant.last_skip:
        # timm's rates of stochastic depth rise to the full rate in the last block.
        model.blocks[-1] = UnskippedBlock(
            shape.width, shape.heads, qkv_bias=True, norm_layer=norm_layer, drop_path=drop_path_rate
        )
    return model
