"""Counts the operations of a training step (a multiply-add as two), and measures a device's rate."""

from __future__ import annotations

import time

import torch

from retfound_dist.estimate import model_shapes
from retfound_dist.model.devices import wait_for_device
from retfound_dist.model.mae import MaskedAutoencoder


def forward_flops(model: MaskedAutoencoder) -> int:
    """Forward operations for one image: visible patches in the encoder, all patches in the decoder."""
    return model_shapes.forward_flops(model.config)


def training_flops(model: MaskedAutoencoder) -> int:
    """Forward and backward operations for one image: the backward pass costs twice the forward."""
    return 3 * forward_flops(model)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 0) -> float:
    """Operations per second of a large matrix product on this device, measured now (best of five)."""
    # So large on a GPU that the launch time does not matter; the three matrices take 400 MB in bf16.
    n = size or (8192 if device.type == "cuda" else 768)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    # Six, because the first call also selects and loads the kernel, and is never the fastest.
    for _ in range(6):
        wait_for_device(device)
        # GPUs run asynchronously: without waiting, only the launch would be measured.
        begun = time.perf_counter()
        a @ b
        wait_for_device(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * n**3 / best
