"""The first layer of a network that takes images as they are: it normalises them for the network behind it.

Shapes: B batch, H W pixels of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retfound_dist.errors import DataError
from retfound_dist.model.backbones.backbone import Preparation


class InputLayer(nn.Module):
    """uint8, or floats from 0 to 1, of one or three channels, to the network's input (B, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, preparation: Preparation, image_size: int) -> None:
        super().__init__()
        self.preparation, self.image_size = preparation, image_size
        # Buffers, because they must move to the GPU with the network, also in an exported graph.
        for name, values in (("mean", preparation.mean), ("std", preparation.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W), in the arithmetic of `Preparation.normalise`. It checks nothing: see `check`."""
        x = images_BCHW.float()
        if images_BCHW.dtype == torch.uint8:
            x = x.div(255)
        return (x.expand(-1, 3, -1, -1) - self.mean) / self.std

    def check(self, images_BCHW: Tensor) -> None:
        """DataError where images have another shape, type or range than `forward` takes."""
        side, shape = self.image_size, tuple(images_BCHW.shape)
        if len(shape) != 4 or shape[1] not in (1, 3) or shape[2:] != (side, side):
            raise DataError(
                f"images have the shape {shape}: this model takes (B, 1, {side}, {side}) in gray or "
                f"(B, 3, {side}, {side}) in colour; `retfound_dist.read_images(..., like=model)` gives them"
            )
        if images_BCHW.dtype == torch.uint8:
            return
        if not images_BCHW.is_floating_point():
            raise DataError(
                f"images are {images_BCHW.dtype}: give torch.uint8 (0 to 255), or floats from 0 to 1"
            )
        # Floats from 0 to 255 would be taken without an error, and every prediction would be wrong.
        if images_BCHW.numel() and not bool((images_BCHW.amin() >= 0) & (images_BCHW.amax() <= 1)):
            low, high = float(images_BCHW.amin()), float(images_BCHW.amax())
            raise DataError(
                f"images are floats from {low:g} to {high:g}: give floats from 0 to 1, not normalised, "
                "or torch.uint8"
            )
