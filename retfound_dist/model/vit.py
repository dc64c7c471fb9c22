"""Builds timm's ViT as a classifier (mean of patches, `fc_norm`, a linear head) and as a bare encoder."""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from retfound_dist.model.mae import NORM_EPS, EncoderShape

HEAD_STD = 2e-5
"""Standard deviation of the head's initial weights (RETFound, fine-tuning)."""


def build_classifier(
    shape: EncoderShape, image_size: int, classes: int, drop_path: float = 0.0
) -> VisionTransformer:
    """A ViT that maps normalised images (B, 3, H, W) to logits (B, classes)."""
    model = _make_vit(shape, image_size, num_classes=classes, global_pool="avg", drop_path_rate=drop_path)
    start_head(model.head)
    return model


def start_head(head: nn.Module | None) -> None:
    """Draw a linear head near zero, so that fine-tuning begins with equal probabilities for all classes."""
    if isinstance(head, nn.Linear):
        nn.init.trunc_normal_(head.weight, std=HEAD_STD)
        nn.init.zeros_(head.bias)


def build_encoder(shape: EncoderShape, image_size: int) -> VisionTransformer:
    """A ViT without a head: `forward_features` returns normed tokens (B, 1 + L, D), class token first."""
    return _make_vit(shape, image_size, num_classes=0, global_pool="token")


def _make_vit(shape: EncoderShape, image_size: int, **options: Any) -> VisionTransformer:
    return VisionTransformer(
        img_size=image_size,
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),
        **options,
    )
