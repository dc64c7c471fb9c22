"""bf16 on processors.

Without bf16 instructions PyTorch multiplies bf16 matrices about ten times slower than fp32 ones. `linear`
widens the operands, multiplies in fp32 and rounds the result to bf16: what bf16 hardware does, which also
adds up in fp32. With them, flash attention is what is slow: its backward pass takes 2.6 times as long as
two products and a softmax do (50 and 197 tokens, AMD EPYC); in fp32 it is the faster one.
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
    """`nn.Linear` by way of `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias)


def widen_linears(model: nn.Module) -> None:
    """Give every `nn.Linear` of a model the wide product; names and values stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear


def suit_cpu(model: nn.Module, precision: Literal["bf16", "fp32"]) -> None:
    """Have a model compute by what is fast on this processor; names and values stay."""
    if not has_bf16_instructions():
        widen_linears(model)
    elif precision == "bf16":
        for module in model.modules():
            if isinstance(module, Attention):
                module.fused_attn = False
