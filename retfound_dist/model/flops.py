"""How much arithmetic a training step is: counted from shapes, a multiply-add as two operations."""

from __future__ import annotations

import time

import torch

from retfound_dist.model.mae import MaskedAutoencoder


def block_flops(tokens: int, width: int) -> int:
    """Forward operations of one transformer block on one image: 24 n d^2 (products) + 4 n^2 d (attention)."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def forward_flops(model: MaskedAutoencoder) -> int:
    """Forward operations for one image: visible patches in the encoder, all patches in the decoder."""
    shape, config = model.shape, model.config
    visible, every, values = model.kept + 1, model.patches + 1, 3 * shape.patch**2
    encoder = shape.depth * block_flops(visible, shape.width) + 2 * model.kept * values * shape.width
    decoder = config.decoder_depth * block_flops(every, config.decoder_width)
    ends = 2 * visible * shape.width * config.decoder_width
    ends += 2 * (model.patches - model.kept) * values * config.decoder_width
    return encoder + decoder + ends


def training_flops(model: MaskedAutoencoder) -> int:
    """Forward and backward operations for one image: the backward pass costs twice the forward."""
    return 3 * forward_flops(model)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 0) -> float:
    """Operations per second of a large matrix product on this device, as measured now (best of five)."""
    n = size or (8192 if device.type == "cuda" else 768)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        _wait(device)
        begun = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * n**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
