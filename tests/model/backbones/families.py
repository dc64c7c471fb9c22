"""Models of several families with random weights, drawn so that every part of them matters."""

from __future__ import annotations

import timm
import torch
from torch import nn

FAMILIES = {
    "vit_small_patch14_reg4_dinov2": 56,
    "vit_small_patch16_dinov3": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 64,
    "vit_base_patch32_clip_224": 64,
    "vit_base_patch16_siglip_224": 64,
    "eva02_tiny_patch14_224": 56,
    "swin_tiny_patch4_window7_224": 112,
    "resnet18": 64,
}
"""Name and an input size that differs from the published one where the family allows it."""


def drawn(name: str, image_size: int | None = None, seed: int = 0) -> nn.Module:
    """timm's encoder of a family. LayerScale's 1e-5 and zero positions would hide what a reader forgets."""
    torch.manual_seed(seed)
    config = timm.get_pretrained_cfg(name)
    options = {"img_size": image_size} if image_size and config.fixed_input_size else {}
    model: nn.Module = timm.create_model(name, num_classes=0, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()
