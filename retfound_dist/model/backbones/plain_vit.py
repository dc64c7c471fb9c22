"""A ViT under MAE's names: our checkpoints, MAE's and RETFound's files, near relatives, noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from retfound_dist.errors import ConfigError
from retfound_dist.model.backbones.backbone import Backbone, Preparation
from retfound_dist.model.mae import ENCODERS, EncoderShape
from retfound_dist.model.positions import sincos_positions
from retfound_dist.model.vit import PLAIN, VitVariant, build_classifier, build_encoder
from retfound_dist.model.weights.weight_files import Weights, load_into

PLAIN_VIT = "plain_vit"
"""`kind` in `PlainVit.to_json`."""


class PlainVit(Backbone):
    """timm's ViT; positions are resampled to the image size. Without weights: random, sin-cos positions."""

    def __init__(
        self,
        load: Callable[[], Weights] | None,
        shape: EncoderShape,
        image_size: int,
        preparation: Preparation | None = None,
        variant: VitVariant = PLAIN,
    ) -> None:
        if image_size % shape.patch:
            raise ConfigError(
                f"model.image_size={image_size} is not a multiple of the patch of {shape.patch} pixels: "
                f"choose {nearest_multiple(image_size, shape.patch)}"
            )
        self._load, self.shape, self.image_size, self.variant = load, shape, image_size, variant
        name = next((name for name, known in ENCODERS.items() if known == shape), _describe(shape))
        self.family = f"{variant.family} {name}".strip()
        self.preparation = preparation or Preparation()

    @property
    def weights(self) -> Weights | None:
        """The weights, read at the first use; None if it is drawn at random."""
        return self._load() if self._load else None

    def architecture(self) -> dict[str, Any]:
        """Width, depth, heads and patch; of a relative of the plain ViT also what differs."""
        # Cached features and old results know plain ViTs without these keys.
        return asdict(self.shape) | (asdict(self.variant) if self.variant != PLAIN else {})

    def to_json(self) -> dict[str, Any]:
        """Shape, variant, size and the preparation of images."""
        return {
            "kind": PLAIN_VIT,
            "shape": asdict(self.shape),
            "variant": asdict(self.variant),
            "image_size": self.image_size,
            "preparation": asdict(self.preparation),
        }

    def at_size(self, image_size: int) -> PlainVit:
        """The same weights at another input size."""
        return PlainVit(self._load, self.shape, image_size, self.preparation, self.variant)

    def build(self, classes: int = 0, drop_path: float = 0.0, seed: int = 0) -> nn.Module:
        """A classifier pools the mean of the patches (RETFound); without classes the encoder alone."""
        torch.manual_seed(seed)
        if classes:
            model = build_classifier(self.shape, self.image_size, classes, drop_path, self.variant)
        else:
            model = build_encoder(self.shape, self.image_size, self.variant)
        side = self.image_size // self.shape.patch
        weights = self.weights
        if weights is None:
            with torch.no_grad():
                model.pos_embed.copy_(sincos_positions(self.shape.width, (side, side)))
        else:
            load_into(model, weights, (side, side))
        return cast(nn.Module, model)

    def skeleton(self) -> nn.Module:
        """The encoder on the meta device."""
        with torch.device("meta"):
            return cast(nn.Module, build_encoder(self.shape, self.image_size, self.variant))


def nearest_multiple(size: int, patch: int) -> int:
    """The multiple of a patch that is nearest to a size, and not 0."""
    return max(1, round(size / patch)) * patch


def _describe(shape: EncoderShape) -> str:
    return f"ViT of width {shape.width}, depth {shape.depth}, patch {shape.patch}"
