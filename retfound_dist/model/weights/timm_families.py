"""Recognises encoders of published families in a file, and says which timm architecture reads them.

Sources of the layouts: DINOv2 with registers (Darcet et al. 2024, `facebookresearch/dinov2`, its keys
`register_tokens`; timm's `reg_token`), DINOv3 (`facebookresearch/dinov3`, its keys `storage_tokens`),
RETFound-Green (Engelmann and Bernabeu 2025: timm's `vit_small_patch14_reg4_dinov2` at 392 pixels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

_SIZES = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
_DINOV3_SIZES = {384: "small", 768: "base", 1024: "large", 1280: "huge_plus"}


def architecture(state: Mapping[str, Tensor]) -> str:
    """timm's name for the architecture of these tensors; empty if it is not known."""
    patch = state.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4:
        return ""
    width, side = int(patch.shape[0]), int(patch.shape[-1])
    if "storage_tokens" in state and side == 16 and width in _DINOV3_SIZES:
        # The "plus" models have a gated MLP, whose layers are numbered.
        plus = "_plus" if width == 384 and "blocks.0.mlp.w1.weight" in state else ""
        return f"vit_{_DINOV3_SIZES[width]}{plus}_patch16_dinov3"
    registers = next((state[name] for name in ("reg_token", "register_tokens") if name in state), None)
    if registers is None or width not in _SIZES:
        return ""
    # DINOv3 under timm's names has no positions of its own: it has RoPE.
    if "pos_embed" not in state and side == 16:
        return f"vit_{_SIZES[width]}_patch16_dinov3" if width in _DINOV3_SIZES else ""
    return f"vit_{_SIZES[width]}_patch14_reg4_dinov2" if (side, registers.shape[1]) == (14, 4) else ""


def trained_size(state: Mapping[str, Tensor]) -> int | None:
    """Side of the input, in pixels, that the positions were trained for; None without positions."""
    patch, positions = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if patch is None or positions is None:
        return None
    # DINOv2's own files have a position of the class token too, timm's have not.
    count = int(positions.shape[1])
    sides = [math.isqrt(number) for number in (count, count - 1) if math.isqrt(number) ** 2 == number]
    return sides[0] * int(patch.shape[-1]) if sides else None
