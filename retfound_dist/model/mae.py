"""The masked autoencoder: He et al., *Masked Autoencoders Are Scalable Vision Learners*, CVPR 2022.

Shapes: B batch, C input channels (1 grey or 3 RGB), H W pixels, L patches, V visible patches,
R removed patches, P pixels a patch (patch x patch), K = 3 P values a patch, D encoder width,
E decoder width. In `mask_BL` 1 is removed.
"""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retfound_dist.config.schema import Model
from retfound_dist.estimate.model_shapes import ENCODERS as ENCODERS
from retfound_dist.estimate.model_shapes import EncoderShape as EncoderShape
from retfound_dist.estimate.model_shapes import check_model
from retfound_dist.estimate.model_shapes import encoder_shape as encoder_shape
from retfound_dist.model.cpu_bf16 import linear
from retfound_dist.model.positions import sincos_positions

# Statistics of ImageNet's RGB images, as in torchvision and MAE: weights from ImageNet need this
# normalisation.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# As in MAE and timm. With torch's default, 1e-5, their weights would give other features.
NORM_EPS = 1e-6


class PatchProjection(nn.Module):
    """The convolution of the patch embedding, applied to separate patches.

    It keeps the convolution's weight layout (D, 3, patch, patch), so that MAE's and timm's weights fit.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 3, patch, patch))
        self.bias = nn.Parameter(torch.zeros(width))
        # As in MAE: initialised like a linear layer, not like a convolution.
        nn.init.xavier_uniform_(self.weight.view(width, -1))

    def forward(self, patches_BVK: Tensor) -> Tensor:
        """(B, V, K) in (row, column, channel) order to (B, V, D)."""
        # A matrix product, not a convolution: only the visible patches are embedded.
        weight_DK = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(patches_BVK, weight_DK, self.bias)


class PatchEmbed(nn.Module):
    """Contains `proj`, so that keys are named `patch_embed.proj.*`."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = PatchProjection(width, patch)

    def forward(self, patches_BVK: Tensor) -> Tensor:
        """(B, V, K) to (B, V, D)."""
        embedded: Tensor = self.proj(patches_BVK)
        return embedded


class MaskedAutoencoder(nn.Module):
    """Encoder on visible patches, small decoder, loss on removed patches. Key names are MAE's."""

    def __init__(self, config: Model, activation_checkpointing: bool = False) -> None:
        super().__init__()
        check_model(config)
        shape = encoder_shape(config.name)
        self.config, self.shape = config, shape
        self.activation_checkpointing = activation_checkpointing
        self.grid = (config.size[0] // shape.patch, config.size[1] // shape.patch)
        width, values = config.decoder_width, 3 * shape.patch**2

        self.patch_embed = PatchEmbed(shape.width, shape.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        # Parameters, although they are fixed, as in MAE: its files contain them, and DeepSpeed's zero_to_fp32
        # can drop buffers.
        self.pos_embed = nn.Parameter(sincos_positions(shape.width, self.grid), requires_grad=False)
        self.blocks = _make_blocks(shape.width, shape.heads, shape.depth)
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)

        self.decoder_embed = nn.Linear(shape.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(width, self.grid), requires_grad=False)
        self.decoder_blocks = _make_blocks(width, config.decoder_heads, config.decoder_depth)
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(width, values)
        self._initialise_weights()

    def _initialise_weights(self) -> None:
        # 0.02 as in MAE's code (`initialize_weights`).
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def patches(self) -> int:
        """L, the patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def visible_patches(self) -> int:
        """V, the patches that the encoder gets: int(L x (1 - mask ratio))."""
        return int(self.patches * (1 - self.config.mask_ratio))

    def forward(self, images_BCHW: Tensor, noise_BL: Tensor) -> Tensor:
        """The loss of each sample (B,) in fp32, from uint8 images and mask noise.

        The patches with the smallest noise stay visible.
        """
        # In parts, because `compilation.compile_model` compiles each part by itself.
        ids_shuffle_BL = noise_BL.argsort(dim=1)
        x_BVD = self.embed_visible(images_BCHW, ids_shuffle_BL)
        x_BVD = self._run_blocks(self.blocks, x_BVD)
        x_BLE = self.enter_decoder(x_BVD, ids_shuffle_BL)
        x_BLE = self._run_blocks(self.decoder_blocks, x_BLE)
        return self.removed_loss(x_BLE, images_BCHW, ids_shuffle_BL)

    def embed_visible(self, images_BCHW: Tensor, ids_shuffle_BL: Tensor) -> Tensor:
        """Embedded visible patches (B, 1 + V, D), class token first."""
        ids_keep_BV = ids_shuffle_BL[:, : self.visible_patches]
        # Grey and uint8 until patches are selected: normalised values need twelve times the memory.
        raw_BVPC = gather_rows(patchify(images_BCHW, self.shape.patch), ids_keep_BV)
        return self.embed(normalise(raw_BVPC), ids_keep_BV)

    def removed_loss(self, x_BLE: Tensor, images_BCHW: Tensor, ids_shuffle_BL: Tensor) -> Tensor:
        """The loss of each sample (B,) from the decoder's last tokens (B, 1 + L, E), class token first."""
        ids_removed_BR = ids_shuffle_BL[:, self.visible_patches :]
        pred_BRK = self.predict(gather_rows(x_BLE[:, 1:], ids_removed_BR))
        target_BRK = normalise(gather_rows(patchify(images_BCHW, self.shape.patch), ids_removed_BR))
        if self.config.norm_pix_loss:
            target_BRK = normalise_patches(target_BRK)
        # In fp32 at every precision: bf16 would round the squared differences too much.
        return (pred_BRK.float() - target_BRK).square().mean(dim=(1, 2))

    def encode(self, patches_BVK: Tensor, ids_keep_BV: Tensor) -> Tensor:
        """Visible patches to latent tokens (B, 1 + V, D), class token first."""
        return self.norm(self._run_blocks(self.blocks, self.embed(patches_BVK, ids_keep_BV)))  # type: ignore[no-any-return]

    def embed(self, patches_BVK: Tensor, ids_keep_BV: Tensor) -> Tensor:
        """Visible patches to the tokens that enter the encoder's blocks (B, 1 + V, D), class token first."""
        dtype = self.cls_token.dtype
        x_BVD = self.patch_embed(patches_BVK.to(dtype))
        positions = self.pos_embed[:, 1:].expand(x_BVD.shape[0], -1, -1)
        x_BVD = x_BVD + gather_rows(positions, ids_keep_BV)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(x_BVD.shape[0], -1, -1)
        return torch.cat([cls, x_BVD], dim=1)

    def decode(self, latent_BVD: Tensor, ids_shuffle_BL: Tensor) -> Tensor:
        """Latent tokens to decoder tokens of all patches (B, L, E), before the last norm."""
        return self._run_blocks(self.decoder_blocks, self._with_masks(latent_BVD, ids_shuffle_BL))[:, 1:]

    def enter_decoder(self, x_BVD: Tensor, ids_shuffle_BL: Tensor) -> Tensor:
        """The encoder's last tokens to those that enter the decoder's blocks (B, 1 + L, E)."""
        return self._with_masks(self.norm(x_BVD), ids_shuffle_BL)

    def _with_masks(self, latent_BVD: Tensor, ids_shuffle_BL: Tensor) -> Tensor:
        """Latent tokens in the decoder's width, mask tokens between them, and positions (B, 1 + L, E)."""
        x = self.decoder_embed(latent_BVD)
        B, visible, width = x.shape
        masks = self.mask_token.to(x.dtype).expand(B, self.patches - (visible - 1), width)
        ids_restore_BL = ids_shuffle_BL.argsort(dim=1)
        patches_BLE = gather_rows(torch.cat([x[:, 1:], masks], dim=1), ids_restore_BL)
        # All patches go through the blocks, because removed ones attend to visible ones. The last layer is
        # applied only where its output is used.
        return torch.cat([x[:, :1], patches_BLE], dim=1) + self.decoder_pos_embed

    def predict(self, tokens_BRE: Tensor) -> Tensor:
        """Decoder tokens to normalised pixel values (B, R, K)."""
        pixels: Tensor = self.decoder_pred(self.decoder_norm(tokens_BRE))
        return pixels

    def _run_blocks(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """Run the blocks one after another, recomputing activations in the backward pass if configured."""
        for block in blocks:
            # In eval mode there is no backward pass, so recomputing would save no memory.
            recompute = self.activation_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x

    @torch.no_grad()
    def reconstruct(self, images_BCHW: Tensor, noise_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Images with their removed patches filled in (B, 3, H, W, uint8), and mask_BL (1 removed).

        With `norm_pix_loss` the network predicts normalised patches. Their means and variances are taken from
        the original image, as in MAE's figures.
        """
        raw_BLPC = patchify(images_BCHW, self.shape.patch)
        ids_shuffle_BL = noise_BL.argsort(dim=1)
        ids_keep_BV = ids_shuffle_BL[:, : self.visible_patches]
        original_BLK = normalise(raw_BLPC)
        latent_BVD = self.encode(normalise(gather_rows(raw_BLPC, ids_keep_BV)), ids_keep_BV)
        pred_BLK = self.predict(self.decode(latent_BVD, ids_shuffle_BL)).float()
        if self.config.norm_pix_loss:
            mean, var = patch_statistics(original_BLK)
            pred_BLK = pred_BLK * (var + 1e-6).sqrt() + mean
        mask_BL = torch.ones_like(noise_BL).scatter(1, ids_keep_BV, 0)
        mixed_BLK = torch.where(mask_BL[..., None] > 0, pred_BLK, original_BLK)
        return to_pixels(unpatchify(mixed_BLK, self.shape.patch, self.grid)), mask_BL


def _make_blocks(width: int, heads: int, depth: int) -> nn.ModuleList:
    norm = partial(nn.LayerNorm, eps=NORM_EPS)
    return nn.ModuleList(
        Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)
    )


def gather_rows(x_BLn: Tensor, ids_BV: Tensor) -> Tensor:
    """Select rows `ids_BV` of dimension 1: (B, L, ...) to (B, V, ...)."""
    index = ids_BV.reshape(*ids_BV.shape, *[1] * (x_BLn.dim() - 2)).expand(-1, -1, *x_BLn.shape[2:])
    return x_BLn.gather(1, index)


def patchify(images_BCHW: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to (B, L, P, C): patches in reading order, pixels in reading order within."""
    B, C, H, W = images_BCHW.shape
    x = images_BCHW.reshape(B, C, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, (H // patch) * (W // patch), patch * patch, C)


def unpatchify(patches_BLK: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """(B, L, K) in (row, column, channel) order to (B, 3, H, W)."""
    B = patches_BLK.shape[0]
    x = patches_BLK.reshape(B, grid[0], grid[1], patch, patch, 3)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(B, 3, grid[0] * patch, grid[1] * patch)


def normalise(raw_BVPC: Tensor) -> Tensor:
    """uint8 patches to ImageNet-normalised fp32 values (B, V, K); grey is repeated to three channels."""
    # Means and deviations are multiplied by 255 instead of dividing the pixels: that saves a pass over them.
    x = raw_BVPC.float()
    channels = [x[..., min(c, x.shape[-1] - 1)] for c in range(3)]
    scaled = [
        (channel - 255 * mean) / (255 * std)
        for channel, mean, std in zip(channels, IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    return torch.stack(scaled, dim=-1).flatten(2)


def to_pixels(images_B3HW: Tensor) -> Tensor:
    """ImageNet-normalised images back to uint8."""
    mean = images_B3HW.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = images_B3HW.new_tensor(IMAGENET_STD)[:, None, None]
    return ((images_B3HW * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def patch_statistics(target_BRK: Tensor) -> tuple[Tensor, Tensor]:
    """Each patch's mean and unbiased variance, (B, R, 1) both."""
    return target_BRK.mean(dim=-1, keepdim=True), target_BRK.var(dim=-1, keepdim=True)


def normalise_patches(target_BRK: Tensor) -> Tensor:
    """Subtract each patch's mean and divide by its deviation (MAE: unbiased variance, eps 1e-6)."""
    mean, var = patch_statistics(target_BRK)
    return (target_BRK - mean) / (var + 1e-6).sqrt()
