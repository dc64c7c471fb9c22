"""Counts the autoencoder's parameters and operations from its shape alone. Needs no torch.

`retfound_dist/model/mae.py` builds the model that is counted here; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from retfound_dist.config.schema import Model
from retfound_dist.errors import ConfigError

TEST_RESIZE = 256 / 224
"""Shorter side of a resized test image over the side of its centre crop (RETFound's evaluation)."""


@dataclass(frozen=True)
class EncoderShape:
    """The shape of a ViT encoder."""

    width: int
    depth: int
    heads: int
    patch: int


ENCODERS = {
    "vit_demo_patch14": EncoderShape(192, 6, 3, 14),
    "vit_small_patch16": EncoderShape(384, 12, 6, 16),
    "vit_base_patch16": EncoderShape(768, 12, 12, 16),
    "vit_large_patch16": EncoderShape(1024, 24, 16, 16),
    "vit_large_patch14": EncoderShape(1024, 24, 16, 14),
    "vit_huge_patch14": EncoderShape(1280, 32, 16, 14),
}


def encoder_shape(name: str) -> EncoderShape:
    """The encoder's shape for a `model.name`; ConfigError where there is no such encoder."""
    if name not in ENCODERS:
        raise ConfigError(f"model.name={name!r} is not a known encoder: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def check_model(model: Model) -> None:
    """ConfigError for settings from which no autoencoder can be built."""
    shape = encoder_shape(model.name)
    if any(side % shape.patch for side in model.size):
        raise ConfigError(
            f"model.image_size={model.image_size} is not a multiple of the patch of {model.name}: "
            f"choose a multiple of {shape.patch}"
        )
    # A multiple of 4: fixed 2-D positions take a sine and a cosine for each of two axes.
    if model.decoder_width % model.decoder_heads or model.decoder_width % 4:
        raise ConfigError(
            f"model.decoder_width={model.decoder_width} must be a multiple of 4 and of "
            f"model.decoder_heads={model.decoder_heads}"
        )
    count = token_counts(model)
    if not 0 < count.kept < count.patches:
        raise ConfigError(
            f"model.mask_ratio={model.mask_ratio:g} keeps {count.kept} of {count.patches} patches: "
            "choose a ratio that keeps some patches and removes some"
        )


@dataclass(frozen=True)
class TokenCounts:
    """Numbers of tokens in the pass of one image."""

    patches: int
    """All patches, L."""
    kept: int
    """Visible patches, V = int(L x (1 - mask ratio)), which the encoder sees."""
    patch_values: int
    """Pixel values of a patch, K = 3 x patch x patch."""

    @property
    def encoder(self) -> int:
        """Visible patches and the class token."""
        return self.kept + 1

    @property
    def decoder(self) -> int:
        """All patches and the class token."""
        return self.patches + 1

    @property
    def removed(self) -> int:
        """Removed patches, R, which are predicted."""
        return self.patches - self.kept


def token_counts(model: Model) -> TokenCounts:
    """The token counts of one image for a model's settings."""
    patch = encoder_shape(model.name).patch
    patches = (model.size[0] // patch) * (model.size[1] // patch)
    return TokenCounts(patches, int(patches * (1 - model.mask_ratio)), 3 * patch**2)


def parameter_sizes(model: Model) -> Iterator[int]:
    """Number of elements of every trained tensor, in no particular order."""
    # Without positions: they are fixed, not trained.
    shape, values = encoder_shape(model.name), token_counts(model).patch_values
    wide, narrow = shape.width, model.decoder_width
    yield from (wide * values, wide, wide)  # patch projection and its bias, class token
    for width, depth in ((wide, shape.depth), (narrow, model.decoder_depth)):
        for _ in range(depth):
            yield from (3 * width**2, 3 * width, width**2, width)  # attention
            yield from (4 * width**2, 4 * width, 4 * width**2, width)  # perceptron
            yield from (width,) * 4  # two norms
        yield from (width, width)  # last norm
    yield from (wide * narrow, narrow, narrow, narrow * values, values)  # embed, mask token, prediction


def parameter_count(model: Model) -> int:
    """Number of trained parameters."""
    return sum(parameter_sizes(model))


def block_flops(tokens: int, width: int) -> int:
    """Forward operations of one transformer block on one image: 24 n d^2 (products) + 4 n^2 d (attention)."""
    # A product of n x a and a x b takes 2 n a b. Projections are d x 3d, d x d, d x 4d and 4d x d: 12 d^2
    # together.
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def forward_flops(model: Model) -> int:
    """Forward operations for one image: visible patches in the encoder, all in the decoder."""
    shape, count = encoder_shape(model.name), token_counts(model)
    encoder = shape.depth * block_flops(count.encoder, shape.width)
    encoder += 2 * count.kept * count.patch_values * shape.width
    decoder = model.decoder_depth * block_flops(count.decoder, model.decoder_width)
    ends = 2 * count.encoder * shape.width * model.decoder_width
    ends += 2 * count.removed * count.patch_values * model.decoder_width
    return encoder + decoder + ends


def state_bytes(model: Model, precision: str) -> int:
    """Bytes of a checkpoint's training state."""
    # bf16: 2 for the weight, 12 for AdamW's moments and the fp32 weight. fp32: 4 for the weight, 8 for the
    # moments.
    return parameter_count(model) * (14 if precision == "bf16" else 12)


def training_flops(model: Model) -> int:
    """Forward and backward operations for one image: the backward pass costs twice the forward."""
    return 3 * forward_flops(model)
