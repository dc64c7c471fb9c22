"""Random weights in the published layouts of the plain ViT's relatives, and what each project computes.

The formulas are written out in plain torch from the projects' code, as the layouts in `vit_relatives.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import (
    conv2d,
    conv3d,
    gelu,
    interpolate,
    layer_norm,
    linear,
    scaled_dot_product_attention,
)

State = dict[str, Tensor]
WIDTH, HEADS, DEPTH = 128, 2, 2


def drawn_block(prefix: str, qkv: str = "attn.qkv", proj: str = "attn.proj") -> State:
    """One block of a ViT; names differ between the projects."""
    layers = {qkv: (3, 1), proj: (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    state = {}
    for layer, (rows, columns) in layers.items():
        state[f"{prefix}{layer}.weight"] = 0.06 * torch.randn(rows * WIDTH, columns * WIDTH)
        state[f"{prefix}{layer}.bias"] = 0.1 * torch.randn(rows * WIDTH)
    return state | drawn_norm(f"{prefix}norm1") | drawn_norm(f"{prefix}norm2")


def drawn_norm(name: str, width: int = WIDTH) -> State:
    """A LayerNorm that is not an identity."""
    return {f"{name}.weight": 1 + 0.2 * torch.randn(width), f"{name}.bias": 0.2 * torch.randn(width)}


def branches(state: State, prefix: str, x: Tensor, qkv: str, proj: str) -> tuple[Tensor, Tensor]:
    """The residual stream before the MLP, and the MLP's output."""

    def norm(name: str, y: Tensor) -> Tensor:
        weight, bias = state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"]
        return layer_norm(y, (WIDTH,), weight, bias, eps=1e-6)

    def project(name: str, y: Tensor) -> Tensor:
        return linear(y, state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"])

    batch, tokens, _ = x.shape
    qkv_3BHTD = project(qkv, norm("norm1", x)).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(*qkv_3BHTD).transpose(1, 2).reshape(x.shape)
    x = x + project(proj, mixed)
    return x, project("mlp.fc2", gelu(project("mlp.fc1", norm("norm2", x))))


def resized(table_1LD: Tensor, side: int, new_side: int) -> Tensor:
    """Positions on another square grid, as all three projects compute them."""
    grid = table_1LD.transpose(1, 2).reshape(1, -1, side, side)
    return (
        interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
        .flatten(2)
        .transpose(1, 2)
    )


def drawn_pixio(tokens: int = 8, side: int = 4) -> State:
    """Pixio's encoder for images of 16 x side pixels."""
    torch.manual_seed(0)
    state = {
        "cls_token": torch.randn(1, tokens, WIDTH),
        "pos_embed": 0.5 * torch.randn(1, tokens + side**2, WIDTH),
        "patch_embed.proj.weight": 0.05 * torch.randn(WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": 0.1 * torch.randn(WIDTH),
        **drawn_norm("norm"),
    }
    for block in range(DEPTH):
        state |= drawn_block(f"blocks.{block}.")
    return state


def pixio_features(state: State, x_B3HW: Tensor) -> Tensor:
    """Normed tokens of the last block: class tokens, then patches."""
    count = state["cls_token"].shape[1]
    side = round((state["pos_embed"].shape[1] - count) ** 0.5)
    prefix, table = state["pos_embed"].split([count, side**2], 1)
    patches = conv2d(x_B3HW, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = patches.flatten(2).transpose(1, 2) + resized(table, side, patches.shape[-1])
    x = torch.cat([(state["cls_token"] + prefix).expand(len(x), -1, -1), x], 1)
    for block in range(DEPTH):
        stream, mlp = branches(state, f"blocks.{block}.", x, "attn.qkv", "attn.proj")
        x = stream + mlp
    return layer_norm(x, (WIDTH,), state["norm.weight"], state["norm.bias"], eps=1e-6)


def transformers_pixio(state: State) -> State:
    """The same weights under transformers' names, with query, key and value apart."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "attn.proj": "attention.output.dense",
        "blocks.": "encoder.layer.",
    }
    renamed = {}
    for name, value in state.items():
        name = name.replace("norm.", "layernorm.") if name.startswith("norm.") else name
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if "attn.qkv" in name:
            for kind, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{kind}")] = part
        else:
            renamed[name] = value
    return renamed


def drawn_mirage(side: int = 4) -> State:
    """MIRAGE's adapters of two modalities, its encoder and an output adapter."""
    torch.manual_seed(1)
    state = {"global_tokens": torch.randn(1, 1, WIDTH)}
    for modality in ("slo", "bscan"):
        adapter = f"input_adapters.{modality}"
        state |= {
            f"{adapter}.pos_emb": 0.5 * torch.randn(1, WIDTH, side, side),
            f"{adapter}.proj.weight": 0.05 * torch.randn(WIDTH, 1, 32, 32),
            f"{adapter}.proj.bias": 0.1 * torch.randn(WIDTH),
        }
    for block in range(DEPTH):
        state |= drawn_block(f"encoder.{block}.")
    return state | {"output_adapters.bscan.mask_token": torch.zeros(1, 1, 8)}


def mirage_features(state: State, gray_B1HW: Tensor) -> Tensor:
    """Tokens of B-scans in [0, 1] behind a fresh norm: patches, then the global token."""
    adapter = "input_adapters.bscan"
    patches = conv2d(gray_B1HW, state[f"{adapter}.proj.weight"], state[f"{adapter}.proj.bias"], stride=32)
    positions = interpolate(
        state[f"{adapter}.pos_emb"], size=patches.shape[2:], mode="bicubic", align_corners=False
    )
    x = (patches + positions).flatten(2).transpose(1, 2)
    x = torch.cat([x, state["global_tokens"].expand(len(x), -1, -1)], 1)
    for block in range(DEPTH):
        stream, mlp = branches(state, f"encoder.{block}.", x, "attn.qkv", "attn.proj")
        x = stream + mlp
    return layer_norm(x, (WIDTH,), eps=1e-6)


def drawn_octcube(side: int = 4) -> State:
    """OCTCube's autoencoder of the joint pretraining, with one tensor of its decoder."""
    torch.manual_seed(2)
    state = {
        "cls_token": torch.randn(1, 1, WIDTH),
        "pos_embed_class": 0.5 * torch.randn(1, 1, WIDTH),
        "pos_embed_spatial": 0.5 * torch.randn(1, side**2, WIDTH),
        "pos_embed_temporal": 0.5 * torch.randn(1, 20, WIDTH),
        "decoder_embed.weight": torch.randn(8, WIDTH),
        **drawn_norm("norm"),
    }
    for name in ("patch_embed", "high_res_patch_embed"):
        state[f"{name}.proj.weight"] = 0.05 * torch.randn(WIDTH, 1, 3, 16, 16)
        state[f"{name}.proj.bias"] = 0.1 * torch.randn(WIDTH)
    for block in range(DEPTH):
        state |= drawn_block(f"blocks.{block}.", "mixer.Wqkv", "mixer.out_proj")
    return state


def octcube_features(state: State, x_B3HW: Tensor) -> Tensor:
    """Normed tokens of one B-scan, whose three channels are the slices of a volume: class token, patches."""
    weight, bias = state["high_res_patch_embed.proj.weight"], state["high_res_patch_embed.proj.bias"]
    patches = conv3d(x_B3HW[:, None], weight, bias, stride=(3, 16, 16))[:, :, 0]
    side = round(state["pos_embed_spatial"].shape[1] ** 0.5)
    x = patches.flatten(2).transpose(1, 2) + resized(state["pos_embed_spatial"], side, patches.shape[-1])
    x = torch.cat([(state["cls_token"] + state["pos_embed_class"]).expand(len(x), -1, -1), x], 1)
    stream, mlp = x, torch.zeros_like(x)
    for block in range(DEPTH):
        # flash-attn's blocks carry the stream beside the output of the MLP before.
        stream, mlp = branches(
            state, f"blocks.{block}.", stream + mlp if block else x, "mixer.Wqkv", "mixer.out_proj"
        )
    return layer_norm(mlp, (WIDTH,), state["norm.weight"], state["norm.bias"], eps=1e-6)
