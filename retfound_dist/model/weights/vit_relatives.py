"""Reads encoders that are nearly plain ViTs and gives their tensors MAE's names.

Pixio (facebookresearch/pixio, `pixio/pixio.py`, `pretraining/models_pixio.py`; transformers,
`models/pixio`): MAE's names without a container, or under `model` with a decoder after pretraining. 8 class
tokens, each with a learned position; patch 16, 256 pixels, ImageNet's normalisation, bicubic.

MIRAGE (j-morano/MIRAGE, `mirage/input_adapters.py`, `mirage_wrapper.py`, `hf/mirage_hf.py`): under `model` in
the .pth, with the prefix `model.` on the hub. Patches of 32 pixels of grey B-scans in [0, 1] at 512 pixels,
bilinear; positions as a map of each modality, without the global token's. The encoder has no last norm. Its
classifiers put a new one behind it, so here it has weights 1 and biases 0.

OCTCube (ZucksLiu/OCTCubeM, `Pre-training/models_mae_joint_res_flash_attn.py` and the main program of that
model): under `model`, with flash-attn's names. Its pretraining sees single B-scans as well: the channels of a
512-pixel image with ImageNet's normalisation are the three slices of one patch. `high_res_patch_embed` reads
them, without positions along the volume. Blocks return the output of their MLP beside the residual stream
(flash-attn, `Block`), and OCTCube uses the output alone after the last one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retfound_dist.errors import WeightsError
from retfound_dist.estimate.model_shapes import EncoderShape
from retfound_dist.model.vit import VitVariant
from retfound_dist.model.weights.containers import (
    DECODER_PREFIXES,
    Candidate,
    State,
    find_candidates,
    find_states,
)
from retfound_dist.model.weights.foreign_layouts import TOP_LEVEL, encoder_fault

PROJECTION = "patch_embed.proj.weight"
HIGH_RES = "high_res_patch_embed.proj"
BSCAN = "input_adapters.bscan"
HEADS = {1280: 16, 3072: 32}
"""Heads of Pixio's ViT-H and ViT-5B, by width; all others have 64 channels a head."""
_TRANSFORMERS_NAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.", ".attn."),
    (r"^layernorm\.", "norm."),
)


@dataclass(frozen=True)
class RelativeEncoder:
    """An encoder under MAE's names that differs from a plain ViT by its `variant`."""

    variant: VitVariant
    shape: EncoderShape
    grid: tuple[int, int]
    """Rows and columns of patches."""
    state: State
    part: str
    other_names: tuple[str, ...]
    """Names of the file's tensors that are not used."""
    notes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    """Normalisation, where it is not ImageNet's."""
    std: tuple[float, ...] | None = None
    interpolation: str = "bicubic"


def read_relative(tree: Any, url: str, part: str = "") -> RelativeEncoder | None:
    """The first relative of the plain ViT in a file's content; None if it holds none.

    WeightsError, by the family's name, if it holds one that cannot be used.
    """
    for candidate in _candidates(tree):
        if not part or candidate.part == part.removeprefix(TOP_LEVEL):
            for read in (_read_pixio, _read_mirage, _read_octcube):
                if encoder := read(candidate, url):
                    return encoder
    return None


def _candidates(tree: Any) -> Iterator[Candidate]:
    """Groups of tensors that may be one of the families, the most likely first."""
    yield from sorted(find_candidates(tree), key=lambda candidate: candidate.preference)
    # MIRAGE and transformers call nothing as MAE does.
    yield from find_states(tree, (f"{BSCAN}.proj.weight", "embeddings.cls_token"))


def _read_pixio(candidate: Candidate, url: str) -> RelativeEncoder | None:
    state = _named_like_mae(candidate.state)
    tokens = state.get("cls_token")
    if tokens is None or tokens.ndim != 3 or tokens.shape[1] < 2 or "pos_embed" not in state:
        return None
    kept = {name: value for name, value in state.items() if not name.startswith(DECODER_PREFIXES)}
    return _checked(url, VitVariant("Pixio", int(tokens.shape[1])), kept, candidate)


def _read_mirage(candidate: Candidate, url: str) -> RelativeEncoder | None:
    """MIRAGE's encoder of B-scans under timm's names; None where the file is no MultiMAE.

    WeightsError for a MultiMAE without B-scans.
    """
    state = candidate.state
    adapters = sorted({name.split(".")[1] for name in state if name.startswith("input_adapters.")})
    if not adapters:
        return None
    if f"{BSCAN}.proj.weight" not in state or "global_tokens" not in state:
        raise WeightsError(
            f"{url} holds a MultiMAE for {', '.join(adapters)}, not MIRAGE's encoder of B-scans "
            f"({BSCAN}): give MIRAGE-Base or MIRAGE-Large"
        )
    positions_1DHW, tokens = state[f"{BSCAN}.pos_emb"], state["global_tokens"]
    width, count = int(tokens.shape[2]), int(tokens.shape[1])
    table = positions_1DHW.flatten(2).transpose(1, 2)
    converted = {
        # A third for each channel: a grey image is repeated in three.
        PROJECTION: (state[f"{BSCAN}.proj.weight"] / 3).expand(-1, 3, -1, -1).contiguous(),
        "patch_embed.proj.bias": state[f"{BSCAN}.proj.bias"],
        "cls_token": tokens,
        "pos_embed": torch.cat([table.new_zeros(1, count, width), table], dim=1),
        "norm.weight": tokens.new_ones(width),
        "norm.bias": tokens.new_zeros(width),
        **_renamed(state, "encoder.", "blocks."),
    }
    rows, columns = positions_1DHW.shape[2:]
    return _checked(
        url,
        VitVariant("MIRAGE", count),
        converted,
        candidate,
        grid=(rows, columns),
        notes=("only its encoder of B-scans is used, with a last norm that has learned nothing yet",),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation="bilinear",
    )


def _read_octcube(candidate: Candidate, url: str) -> RelativeEncoder | None:
    """OCTCube's reading of single B-scans under timm's names; None where the file is not of OCTCube.

    WeightsError where it has only the 3-D encoder.
    """
    state = candidate.state
    if "pos_embed_spatial" not in state:
        return None
    high_res = state.get(f"{HIGH_RES}.weight")
    single = high_res is not None and tuple(high_res.shape[1:3]) == (1, 3)
    if high_res is None or not single or "blocks.0.mixer.Wqkv.weight" not in state:
        raise WeightsError(
            f"{url} holds OCTCube's 3-D encoder, or another of volumes: its patches span several slices, and "
            f"it has no {HIGH_RES} for single B-scans. Give the OCTCube.pth of the joint pretraining, or a "
            "2-D encoder"
        )
    converted = {
        # Three slices of one channel each: the three channels of one image.
        PROJECTION: high_res.squeeze(1),
        "patch_embed.proj.bias": state[f"{HIGH_RES}.bias"],
        "cls_token": state["cls_token"],
        "pos_embed": torch.cat([state["pos_embed_class"], state["pos_embed_spatial"]], dim=1),
        **{name: state[name] for name in ("norm.weight", "norm.bias")},
        **_renamed(state, "blocks.", "blocks."),
    }
    return _checked(
        url,
        VitVariant("OCTCube", last_skip=False),
        converted,
        candidate,
        notes=("it is OCTCube's reading of single B-scans, not of volumes",),
    )


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> State:
    """The blocks, under timm's names."""
    names = {"mixer.Wqkv": "attn.qkv", "mixer.out_proj": "attn.proj"}
    blocks = {}
    for name, value in state.items():
        if name.startswith(old):
            renamed = new + name.removeprefix(old)
            for theirs, ours in names.items():
                renamed = renamed.replace(theirs, ours)
            blocks[renamed] = value
    return blocks


def _named_like_mae(state: State) -> State:
    """Pixio's tensors with transformers' names get MAE's; others stay as they are."""
    if "embeddings.cls_token" not in state:
        return state
    renamed = {}
    for name, value in state.items():
        for pattern, new in _TRANSFORMERS_NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [renamed.pop(name.replace("query", kind), None) for kind in ("query", "key", "value")]
        if all(part is not None for part in parts):
            renamed[name.replace("query", "qkv")] = torch.cat([part for part in parts if part is not None])
    return renamed


def _checked(
    url: str,
    variant: VitVariant,
    state: State,
    candidate: Candidate,
    grid: tuple[int, int] | None = None,
    **facts: Any,
) -> RelativeEncoder:
    """The encoder, if all its tensors are there; WeightsError, by the family's name, if not."""
    one_token = state["cls_token"][:, :1]
    if fault := encoder_fault({**state, "cls_token": one_token}):
        raise WeightsError(f"{url} holds {variant.family}'s encoder, which cannot be used: {fault}")
    width, patch = (state[PROJECTION].shape[axis] for axis in (0, -1))
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    shape = EncoderShape(width, depth, HEADS.get(width, max(1, width // 64)), patch)
    count = state["pos_embed"].shape[1] - variant.prefix_tokens
    side = math.isqrt(max(count, 0))
    grid = grid or (side, side)
    if count < 1 or grid[0] * grid[1] != count:
        raise WeightsError(
            f"{url} holds {variant.family}'s encoder with positions for {count} patches: no square"
        )
    named = {**state, "cls_token": one_token}
    if variant.prefix_tokens > 1:
        named["reg_token"] = state["cls_token"][:, 1:]
    others = tuple(name for name in candidate.other_names if name not in state)
    return RelativeEncoder(variant, shape, grid, named, candidate.part, others, **facts)
