"""Frozen features: what an encoder says of an image before anything is fine-tuned.

Shapes: N images, S side, D the encoder's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from retfound_dist.evaluate.finetune import best_device
from retfound_dist.evaluate.pixels import Pixels
from retfound_dist.evaluate.start import Start
from retfound_dist.model.positions import sincos_positions
from retfound_dist.model.vit import build_encoder, normalise_images
from retfound_dist.model.weights import load_into

Features = NDArray[np.float32]
BATCH = 64
OnStep = Callable[[int, int], None]


def frozen_encoder(start: Start, seed: int = 0) -> VisionTransformer:
    """The encoder of some starting weights, in eval mode; `none` is noise with sin-cos positions."""
    torch.manual_seed(seed)
    model = build_encoder(start.shape, start.image_size)
    grid = (start.image_size // start.shape.patch,) * 2
    if start.weights is None:
        with torch.no_grad():
            model.pos_embed.copy_(sincos_positions(start.shape.width, grid))
    else:
        load_into(model, start.weights, grid)
    return model.to(best_device()).eval()


@torch.inference_mode()
def features(model: VisionTransformer, images: Sequence[Pixels], tick: OnStep | None = None) -> Features:
    """Mean of the last norm's patch tokens (N, D) in fp32, of grey images (S, S)."""
    device = next(model.parameters()).device
    found = np.empty((len(images), model.num_features), np.float32)
    for begin in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.stack(images[begin : begin + BATCH])[:, None]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            tokens = model.forward_features(normalise_images(batch))
        found[begin : begin + BATCH] = tokens[:, 1:].float().mean(dim=1).cpu().numpy()
        if tick:
            tick(min(begin + BATCH, len(images)), len(images))
    return found
