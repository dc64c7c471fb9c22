"""Makes bf16 fast on CPUs.

Without bf16 instructions PyTorch multiplies bf16 matrices about ten times slower than fp32 ones. `linear`
widens the operands, multiplies in fp32 and rounds the result to bf16. bf16 hardware does the same: it sums in
fp32 too.

With bf16 instructions, flash attention is slow. Its backward pass takes 2.6 times as long as two products and
a softmax (50 and 197 tokens, AMD EPYC). In fp32 it is the faster one.
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
    """x W^T + b, in fp32 inside when all are bf16 on a CPU."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu":
        return nn.functional.linear(x, weight, bias)
    wide = nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    return wide.to(x.dtype)


class WideLinear(nn.Linear):
    """`nn.Linear` that multiplies by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias)


def widen_linears(model: nn.Module) -> None:
    """Make every `nn.Linear` of a model multiply by `linear`; names and values stay."""
    for module in model.modules():
        # The exact class: a subclass may have a forward of its own, which this would replace.
        if type(module) is nn.Linear:
            # Not a new module in its place: so weights, hooks and names stay the very same.
            module.__class__ = WideLinear


def choose_cpu_operators(model: nn.Module, precision: Literal["bf16", "fp32"]) -> None:
    """Make a model use the operators that are fast on this CPU; names and values stay."""
    # In fp32 attention stays fused: it takes a quarter less time so (docs/model.md).
    if not has_bf16_instructions():
        widen_linears(model)
    elif precision == "bf16":
        for module in model.modules():
            if isinstance(module, Attention):
                module.fused_attn = False
