"""An encoder as a network: images in, features out.

    encoder = load_encoder("RUN")
    features_BD = encoder(images)          # uint8, or floats from 0 to 1

Shapes: B batch, H W pixels of an image, L patches (or places of a feature map), D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from retfound_dist.config.schema import OWN, EvalModel
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.model.backbones.input_layer import InputLayer


class Encoder(nn.Module):
    """An image encoder that normalises its images itself."""

    def __init__(self, start: StartingWeights) -> None:
        super().__init__()
        self.backbone, self.image_size = start.backbone, start.image_size
        self.model = start.backbone.build()
        self.input_layer = InputLayer(start.backbone.preparation, start.image_size)
        self.width = start.backbone.facts.width
        self.family = start.backbone.family
        self.remark = start.remark
        """How a file of another project was read; empty for a checkpoint of this project."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, D) in fp32: the features of `retfound embed`. DataError where the images are not as follows.

        Images are those that `read_images` gives: gray (B, 1, H, W) or colour (B, 3, H, W) of the
        encoder's size, as uint8 or as floats from 0 to 1.
        """
        self.input_layer.check(images_BCHW)
        return self.backbone.pooled(self.model, self.input_layer(images_BCHW))

    def patch_features(self, images_BCHW: Tensor) -> Tensor:
        """(B, L, D): what the last layer says of each patch, row by row from the top left.

        Class and register tokens are left out. `images_BCHW`: as for `forward`.
        """
        self.input_layer.check(images_BCHW)
        return self.backbone.positions(self.model, self.input_layer(images_BCHW))


def load_encoder(url: str, image_size: int | None = None) -> Encoder:
    """The encoder of a run, a checkpoint, a weights file, `timm:NAME[@FILE]` or `hf:OWNER/REPO`.

    `image_size`: side of the input in pixels; None for the weights' own. The encoder is on the CPU, in eval
    mode and frozen: `encoder.requires_grad_(True)` lets it train. WeightsError or CheckpointError where the
    weights cannot be used, ConfigError where the size does not fit them.
    """
    start = open_starting_weights(str(url), EvalModel(image_size=image_size or OWN))
    return Encoder(start).requires_grad_(False).eval()
