"""Makes bf16 fast on CPUs.

Without bf16 instructions PyTorch multiplies bf16 matrices about ten times slower than fp32 ones. `linear`
converts the operands to fp32, multiplies and rounds the result to bf16. bf16 hardware computes the same,
because it also sums in fp32.

With bf16 instructions, flash attention is slow. Its backward pass takes 2.6 times as long as two products and
a softmax (50 and 197 tokens, AMD EPYC). In fp32 flash attention is faster.
"""

from __future__ import annotations

from typing import Literal

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn


def has_bf16_instructions() -> bool:
    """Whether this processor multiplies bf16 natively (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b; on a CPU bf16 operands are multiplied in fp32."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu":
        return nn.functional.linear(x, weight, bias)
    product = nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    return product.to(x.dtype)


class WideLinear(nn.Linear):
    """`nn.Linear` that multiplies with `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias)


def widen_linears(model: nn.Module) -> None:
    """Let every `nn.Linear` of a model multiply with `linear`. Names and values do not change."""
    for module in model.modules():
        # The exact class: a subclass may have a forward of its own, which this would replace.
        if type(module) is nn.Linear:
            # Not a new module: weights, hooks and names must remain the same objects.
            module.__class__ = WideLinear


def choose_cpu_operators(model: nn.Module, precision: Literal["bf16", "fp32"]) -> None:
    """Let a model use the operators that are fast on this CPU. Names and values do not change."""
    # In fp32 attention stays fused, which takes a quarter less time (docs/model.md).
    if not has_bf16_instructions():
        widen_linears(model)
    elif precision == "bf16":
        for module in model.modules():
            if isinstance(module, Attention):
                module.fused_attn = False
