"""What the evaluator needs to know of an image encoder, whatever its family.

Shapes: B batch, H W pixels of an image, L positions (patches, or places of a feature map), D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from retfound_dist.model.mae import IMAGENET_MEAN, IMAGENET_STD

Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("bicubic", "bilinear", "lanczos", "nearest")


@dataclass(frozen=True)
class Preparation:
    """How an encoder wants its images, as it was trained on them."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """uint8 gray or RGB images to normalised fp32 (B, 3, H, W)."""
        x = images_BCHW.float().div(255).expand(-1, 3, -1, -1)
        return (x - _channel_values(self.mean, x.device)) / _channel_values(self.std, x.device)


@lru_cache(maxsize=64)
def _channel_values(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value for each channel, (3, 1, 1). Made once: each copy to a GPU would wait for its work."""
    with torch.inference_mode(False):  # it is used again outside the block in which it is made
        return torch.tensor(values, device=device)[:, None, None]


@dataclass(frozen=True)
class InputFacts:
    """What a model's publisher says of its images; None where it is silent."""

    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None


def preparation_of(*sources: InputFacts) -> Preparation:
    """The first of the sources that says something decides; ImageNet's and bicubic where none does."""
    mean = next((source.mean for source in sources if source.mean), IMAGENET_MEAN)
    std = next((source.std for source in sources if source.std), IMAGENET_STD)
    wanted = next((source.interpolation for source in sources if source.interpolation), "")
    # timm calls a mixture of several "random"; bicubic is its default for testing.
    interpolation = next((known for known in INTERPOLATIONS if known == wanted), INTERPOLATIONS[0])
    return Preparation(mean, std, interpolation)


@dataclass(frozen=True)
class BackboneFacts:
    """The columns of a comparison's table that say what is compared. Counted without the task's head."""

    family: str
    """Name of the architecture, such as `vit_small_patch16_dinov3`."""
    image_size: int
    width: int
    tokens: int
    """Tokens of the last block with class and register tokens, or places of the last feature map."""
    parameters: int
    gflops: float
    """10^9 floating-point operations of one image's forward pass; a multiply and an add are two."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation

    def to_json(self) -> dict[str, Any]:
        """The entry `backbone` of metrics.json."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


class Backbone(ABC):
    """An image encoder with its starting weights.

    `build` makes timm modules: `forward` gives logits (B, classes), `forward_features` tokens (B, T, D) or a
    map. The methods below read these alike for every family.
    """

    family: str
    image_size: int
    preparation: Preparation

    @cached_property
    def takes_drop_path(self) -> bool:
        """Whether the family knows stochastic depth; the others are fine-tuned without it."""
        return True

    @abstractmethod
    def build(self, classes: int = 0, drop_path: float = 0.0, seed: int = 0) -> nn.Module:
        """A model with the starting weights; with `classes` a new head, drawn by `seed`.

        The head starts near zero, so that fine-tuning begins with equal probabilities. WeightsError if the
        weights do not fill the encoder.
        """

    @abstractmethod
    def skeleton(self) -> nn.Module:
        """The encoder without memory for its weights (on torch's meta device), for counting."""

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """The entry `encoder` of metrics.json. It identifies cached features."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `opening.empty_backbone` needs to make the same encoder without its weights."""

    @abstractmethod
    def at_size(self, image_size: int) -> Backbone:
        """The same weights at another input size."""

    def positions(self, model: Any, images_B3HW: Tensor) -> Tensor:
        """What the last layer says of each patch or place, (B, L, D), without class and register tokens."""
        return spatial_positions(model, model.forward_features(images_B3HW))

    def pooled(self, model: Any, images_B3HW: Tensor) -> Tensor:
        """The frozen features (B, D) in fp32.

        Of tokens the mean of the patches', with the norm of families that norm after it. Of a map what the
        family itself gives its head.
        """
        return pooled_features(model, model.forward_features(images_B3HW))

    @cached_property
    def facts(self) -> BackboneFacts:
        """What a comparison's table says of this encoder: input, width, tokens, parameters, GFLOP."""
        # On the meta device tensors have shapes but no memory, so counting a ViT-L costs no gigabyte.
        model: Any = self.skeleton().eval()
        images = torch.zeros(1, 3, self.image_size, self.image_size, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = model.forward_features(images)
            width = pooled_features(model, output).shape[1]
        # `output` is tokens (1, T, D), or a map, whose places count as tokens.
        return BackboneFacts(
            family=self.family,
            image_size=self.image_size,
            width=width,
            tokens=output.shape[1] if output.ndim == 3 else spatial_positions(model, output).shape[1],
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            gflops=counter.get_total_flops() / 1e9,
            mean=self.preparation.mean,
            std=self.preparation.std,
            interpolation=self.preparation.interpolation,
        )


def spatial_positions(model: Any, output: Tensor) -> Tensor:
    """Tokens (B, T, D) or a map as a timm model gives it, to (B, L, D)."""
    if output.ndim == 3:
        return output[:, getattr(model, "num_prefix_tokens", 0) :]
    # timm's models with maps say their order of axes where it is not NCHW (Swin: NHWC).
    if str(getattr(model, "output_fmt", "NCHW")) == "NCHW":
        output = output.permute(0, 2, 3, 1)
    return output.flatten(1, 2)


def pooled_features(model: Any, output: Tensor) -> Tensor:
    """(B, D) in fp32 of what `forward_features` gave; see `Backbone.pooled`."""
    if output.ndim == 4:
        pooled: Tensor = model.forward_head(output, pre_logits=True)
        return pooled.flatten(1).float()
    # The mean is taken in fp32: summing in bf16 would lose digits.
    mean_BD = spatial_positions(model, output).float().mean(dim=1)
    # BEiT, EVA and ViTs that pool by a mean have their last norm behind it; it is an identity in the others.
    norm = getattr(model, "fc_norm", None)
    return mean_BD if norm is None else norm(mean_BD).float()
