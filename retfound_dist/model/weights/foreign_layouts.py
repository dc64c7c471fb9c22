"""Converts files of MAE, RETFound (also of the DINOv2 kind), timm and plain ViTs to MAE's key names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retfound_dist.errors import WeightsError
from retfound_dist.model.weights.containers import Candidate, State, candidates, tensors_of

SCALES = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
"""LayerScale, and the layer whose output it scales."""
# Refused and not dropped: without them the network would compute something else, and nobody would notice.
OTHER = re.compile(
    r"register_tokens|reg_token|dist_token|norm_pre\.|\.[qk]_norm\.|patch_embed\.norm\.|rel_pos|relative_position"
    r"|gamma_[12]|\.[qv]_bias"
)
"""Parts of other ViTs (registers, DeiT's distillation, CLIP, query norms, BEiT) which a plain ViT lacks."""
FAMILIES = (
    (r"embeddings\.patch_embeddings\.|encoder\.layer\.\d+\.", "a ViT with Hugging Face transformers' names"),
    (r"transformer\.resblocks\.\d+\.", "a ViT with CLIP's names"),
    (r"encoder_layer_\d+\.|^(.*\.)?conv_proj\.", "a ViT with torchvision's names"),
    (r"layers\.\d+\.(ln1|ffn)\.", "a ViT with MMPretrain's names"),
    (r"layers\.\d+\.blocks\.\d+\.|relative_position_bias_table", "a Swin Transformer or a BEiT"),
    (r"layer[1-4]\.\d+\.conv\d|stages\.\d+\.", "a convolutional network"),
)
"""Other networks, recognised by their tensors' names."""
TOP = "."
"""Names the file's own level in `FILE#PART`."""
_LAYERS = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
"""A block's layers: outputs and inputs in widths."""
_NEEDED = ("patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.attn.qkv.weight")


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder, with its decoder where there is one, under MAE's names."""

    state: State
    part: str
    """Where in the file it stood; empty: at its own level."""
    left: tuple[str, ...]
    """Names of the tensors beside it."""
    notes: tuple[str, ...]
    """Lines for a person: what was chosen or converted."""


def to_mae(tree: Any, url: str, part: str = "") -> ForeignEncoder:
    """The encoder in a file's tree; WeightsError with what is missing where there is no whole one.

    `part` asks for one of several by its place. LayerScale is folded into the layer before it: the function
    stays the same. A mask token without a decoder belongs to another kind of pretraining.
    """
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{url} holds a {type(tree).__name__}, not a set of named tensors")
    place = "" if part == TOP else part
    every_candidate = candidates(tree)
    chosen_from = [c for c in every_candidate if not part or c.part == place]
    if not chosen_from:
        raise _no_encoder(tree, url, part, [c.part or TOP for c in every_candidate])
    converted = [_convert(candidate) for candidate in chosen_from]
    # Wholeness is judged after conversion, which adds what a file of this kind leaves out (`norm`).
    pairs = list(zip(chosen_from, converted, strict=True))
    whole = [(c, state, notes) for c, (state, notes) in pairs if not fault(state)]
    if not whole:
        # The error is about the one that lacks least: most likely that one is meant.
        candidate, (state, _) = min(pairs, key=lambda pair: len(missing(pair[1][0])))
        where = f" under {candidate.part}" if candidate.part else ""
        raise WeightsError(f"{url} holds no ViT encoder that can be used{where}: {fault(state)}")
    # Of equal rank the one nearest to the top; then the first in the file.
    best = min(range(len(whole)), key=lambda i: (whole[i][0].preference, whole[i][0].part.count(".")))
    chosen, state, notes = whole.pop(best)
    notes += _others(url, chosen, state, [(c, other) for c, other, _ in whole])
    return ForeignEncoder(state, chosen.part, chosen.left, notes)


def _no_encoder(tree: Any, url: str, part: str, parts: Sequence[str]) -> WeightsError:
    if part and parts:
        return WeightsError(f"{url} has no encoder under {part}: its parts are {', '.join(parts)}")
    names = tensors_of(tree)
    for pattern, family in FAMILIES:
        if any(re.search(pattern, name) for name in names):
            return WeightsError(
                f"{url} holds {family}, which is not read here: give a ViT with MAE's or timm's names"
            )
    some = f" ({', '.join(list(names)[:3])}, ...)" if names else ""
    return WeightsError(
        f"{url} holds no ViT encoder: {', '.join(_NEEDED)} not among its {len(names)} tensors{some}"
    )


def _others(
    url: str, chosen: Candidate, state: State, others: Sequence[tuple[Candidate, State]]
) -> tuple[str, ...]:
    """A note on what else could have been taken, and how to ask for it, where it would make a difference."""
    different = [c.part or TOP for c, other in others if not _same(state, other)]
    if not different:
        return ()
    taken, also = chosen.part or "the top level", ", ".join(different)
    return (f"{taken} is taken and not {also}, which '{url}#{different[0]}' would be",)


def _same(a: State, b: State) -> bool:
    return all(name in b and torch.equal(a[name], b[name]) for name in _expected(a))


def missing(state: State) -> list[str]:
    """The names that a whole encoder, as deep as its deepest block, has and this one does not."""
    return [name for name in _expected(state) if name not in state]


def fault(state: State) -> str:
    """Why this is no whole encoder; empty where it is one."""
    if other := next(filter(OTHER.search, state), None):
        return f"it has {other}, which this ViT does not have: give a plain ViT, without registers"
    if absent := missing(state):
        if absent == ["pos_embed"]:
            return "it has no positions (pos_embed), and nothing tells which it was trained with"
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        return f"{', '.join(absent[:4])}{more} missing"
    for name, shape in _expected(state).items():
        actual = tuple(state[name].shape)
        if name == "pos_embed":
            shape = (1, *actual[1:2], shape[2])
        if actual != shape:
            return f"{name} has shape {actual}, where a ViT of this width has {shape}"
        if not state[name].is_floating_point():
            return f"{name} holds {state[name].dtype}: give weights that are not quantised"
    return ""


def _expected(state: State) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ViT as wide and deep as this one; 0 positions stand for any number."""
    projection = state.get("patch_embed.proj.weight")
    usable = projection is not None and projection.ndim == 4
    wide, patch = (projection.shape[0], projection.shape[-1]) if projection is not None and usable else (0, 0)
    depth = 1 + max((int(n.split(".")[1]) for n in state if re.match(r"blocks\.\d+\.", n)), default=0)
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (wide, 3, patch, patch)}
    shapes |= {"patch_embed.proj.bias": (wide,), "cls_token": (1, 1, wide), "pos_embed": (1, 0, wide)}
    for block in range(depth):
        for layer, (rows, columns) in _LAYERS.items():
            name = f"blocks.{block}.{layer}"
            shapes |= {f"{name}.weight": (rows * wide, columns * wide), f"{name}.bias": (rows * wide,)}
        norms = (f"blocks.{block}.norm1", f"blocks.{block}.norm2")
        shapes |= {f"{norm}.{kind}": (wide,) for norm in norms for kind in ("weight", "bias")}
    return shapes | {"norm.weight": (wide,), "norm.bias": (wide,)}


def _convert(candidate: Candidate) -> tuple[State, tuple[str, ...]]:
    """The tensors under MAE's names and in its shapes, and notes on what was converted."""
    state, notes = dict(candidate.state), []
    # DINOv2's and BEiT's mask tokens are of the encoder's width, MAE's of its decoder's.
    if "decoder_pred.weight" not in state:
        state.pop("mask_token", None)
    if "norm.weight" not in state and {"fc_norm.weight", "fc_norm.bias"} <= state.keys():
        state |= {f"norm.{kind}": state[f"fc_norm.{kind}"] for kind in ("weight", "bias")}
        notes.append("it has no norm, as a classifier of mean-pooled patches: its fc_norm is taken for it")
    name = "patch_embed.proj.weight"
    if name in state and state[name].ndim == 4 and state[name].shape[1] == 1:
        # A third for each channel: so the grey weight meets the mean of the three.
        state[name] = (state[name] / 3).expand(-1, 3, -1, -1).contiguous()
        notes.append(
            "its patch embedding is grey: it is given the mean of the three normalised channels, "
            "and its own images may have been normalised otherwise"
        )
    return _fold_scales(state), tuple(notes)


def _fold_scales(state: State) -> State:
    """gamma (W x + b) = (gamma W) x + gamma b (Touvron et al. 2021, LayerScale)."""
    folded = {}
    for key, value in state.items():
        if not key.endswith(tuple(SCALES)):
            folded[key] = value
    for key, gamma in state.items():
        for suffix, layer in SCALES.items():
            name = key.removesuffix(suffix) + layer
            if key.endswith(suffix) and {f"{name}.weight", f"{name}.bias"} <= folded.keys():
                folded[f"{name}.weight"] = _scaled(gamma[:, None], folded[f"{name}.weight"])
                folded[f"{name}.bias"] = _scaled(gamma, folded[f"{name}.bias"])
    return folded


def _scaled(gamma: Tensor, value: Tensor) -> Tensor:
    return (value.float() * gamma.float()).to(gamma.dtype)
