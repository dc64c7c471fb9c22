"""Converts weights of MAE, RETFound (both MAE and DINOv2), timm and plain ViTs to MAE's key names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retfound_dist.errors import WeightsError
from retfound_dist.model.weights.containers import Candidate, State, all_tensors, find_candidates

LAYER_SCALES = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
"""Tensors of LayerScale, and the layer whose output each scales."""
# Refused, not dropped: without them the network would compute something else, and nobody would notice.
UNSUPPORTED = re.compile(
    r"register_tokens|reg_token|dist_token|norm_pre\.|\.[qk]_norm\.|patch_embed\.norm\.|rel_pos|relative_position"
    r"|gamma_[12]|\.[qv]_bias"
)
"""Parts that a plain ViT does not have: registers, DeiT's distillation token, CLIP, query norms, BEiT."""
OTHER_NETWORKS = (
    (r"embeddings\.patch_embeddings\.|encoder\.layer\.\d+\.", "a ViT with Hugging Face transformers' names"),
    (r"transformer\.resblocks\.\d+\.", "a ViT with CLIP's names"),
    (r"encoder_layer_\d+\.|^(.*\.)?conv_proj\.", "a ViT with torchvision's names"),
    (r"layers\.\d+\.(ln1|ffn)\.", "a ViT with MMPretrain's names"),
    (r"layers\.\d+\.blocks\.\d+\.|relative_position_bias_table", "a Swin Transformer or a BEiT"),
    (r"layer[1-4]\.\d+\.conv\d|stages\.\d+\.", "a convolutional network"),
)
"""Other networks, recognised by their tensors' names."""
_ADVICE = "give a ViT with MAE's or timm's names"
TOP_LEVEL = "."
"""Stands for the top level of the file in `FILE#PART`."""
_LAYERS = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
"""The layers of a block: outputs and inputs, in multiples of the width."""
REQUIRED = ("patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.attn.qkv.weight")


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder under MAE's names, with its decoder if the file has one."""

    state: State
    part: str
    """Its container and prefix in the file; empty: the top level."""
    other_names: tuple[str, ...]
    """Names of the other tensors in the same container."""
    notes: tuple[str, ...]
    """Lines for the user on what was chosen or converted."""


def convert_to_mae(tree: Any, url: str, part: str = "") -> ForeignEncoder:
    """The encoder in the content of a file; WeightsError, which names what is missing, if none is complete.

    `part` selects one of several encoders. LayerScale is folded into the layer before it: the network
    computes the same. A mask token without a decoder is dropped: it belongs to another kind of pretraining.
    """
    if not isinstance(tree, Mapping):
        raise WeightsError(
            f"{url} holds a {type(tree).__name__}, not a set of named tensors: save a model's state_dict()"
        )
    wanted_part = "" if part == TOP_LEVEL else part
    all_candidates = find_candidates(tree)
    candidates = [c for c in all_candidates if not part or c.part == wanted_part]
    if not candidates:
        raise _no_encoder_error(tree, url, part, [c.part or TOP_LEVEL for c in all_candidates])
    converted = [_convert(candidate) for candidate in candidates]
    # Checked after conversion, which can add tensors that a file does not have (`norm`).
    pairs = list(zip(candidates, converted, strict=True))
    complete = [(c, state, notes) for c, (state, notes) in pairs if not encoder_fault(state)]
    if not complete:
        # The error is about the encoder with the fewest missing tensors: most likely the user means that one.
        candidate, (state, _) = min(pairs, key=lambda pair: len(missing_names(pair[1][0])))
        where = f" under {candidate.part}" if candidate.part else ""
        # Also under the other prefixes: a Swin's stages look like small ViTs.
        if family := _other_network(name for other in candidates for name in other.state):
            raise WeightsError(f"{url} holds {family}, which is not supported: {_ADVICE}")
        raise WeightsError(f"{url} holds no ViT encoder that can be used{where}: {encoder_fault(state)}")
    # Of equal preference the one nearest to the top level; then the first in the file.
    ranks = [(candidate.preference, candidate.part.count(".")) for candidate, _, _ in complete]
    best = ranks.index(min(ranks))
    chosen, state, notes = complete.pop(best)
    notes += _note_on_others(url, chosen, state, [(c, other) for c, other, _ in complete])
    return ForeignEncoder(state, chosen.part, chosen.other_names, notes)


def _no_encoder_error(tree: Any, url: str, part: str, parts_in_file: Sequence[str]) -> WeightsError:
    """The error for a file without a candidate for an encoder: it says what the file has instead.

    `tree`: the content of the file; `part`: the part that the user asked for (`FILE#PART`), empty for any;
    `parts_in_file`: the parts that could have been asked for.
    """
    if part and parts_in_file:
        return WeightsError(f"{url} has no encoder under {part}: its parts are {', '.join(parts_in_file)}")
    names = all_tensors(tree)
    if family := _other_network(names):
        return WeightsError(f"{url} holds {family}, which is not supported: {_ADVICE}")
    examples = f" ({', '.join(list(names)[:3])}, ...)" if names else ""
    return WeightsError(
        f"{url} holds no ViT encoder: {', '.join(REQUIRED)} are not among its {len(names)} tensors"
        f"{examples}; {_ADVICE}"
    )


def _other_network(names: Iterable[str]) -> str:
    """The kind of another network, such as `a convolutional network`, by the names of its tensors.

    Empty if the names are of none in `OTHER_NETWORKS`.
    """
    all_names = list(names)
    kinds = (kind for pattern, kind in OTHER_NETWORKS if any(re.search(pattern, name) for name in all_names))
    return next(kinds, "")


def _note_on_others(
    url: str, chosen: Candidate, state: State, others: Sequence[tuple[Candidate, State]]
) -> tuple[str, ...]:
    """A note on the other encoders of the file and how to select them; none if they are all the same."""
    different = [c.part or TOP_LEVEL for c, other in others if not _same_encoder(state, other)]
    if not different:
        return ()
    used, unused = chosen.part or "the top level", ", ".join(different)
    return (f"{used} is used, not {unused}: give '{url}#{different[0]}' for the other",)


def _same_encoder(a: State, b: State) -> bool:
    return all(name in b and torch.equal(a[name], b[name]) for name in _expected_shapes(a))


def missing_names(state: State) -> list[str]:
    """Names of tensors that an encoder of this depth has, and this one does not."""
    return [name for name in _expected_shapes(state) if name not in state]


def encoder_fault(state: State) -> str:
    """The reason why this encoder cannot be used; empty if it can."""
    if other := next(filter(UNSUPPORTED.search, state), None):
        return f"it has {other}, which this ViT does not have: give a plain ViT, without registers"
    if absent := missing_names(state):
        if absent == ["pos_embed"]:
            return "it has no positions (pos_embed), and the file does not say which it was trained with"
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        return f"{', '.join(absent[:4])}{more} missing"
    for name, shape in _expected_shapes(state).items():
        actual = tuple(state[name].shape)
        if name == "pos_embed":
            shape = (1, *actual[1:2], shape[2])
        if actual != shape:
            return f"{name} has shape {actual}, but a ViT of this width has {shape}"
        if not state[name].is_floating_point():
            return f"{name} holds {state[name].dtype}: give weights that are not quantised"
    return ""


def _expected_shapes(state: State) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ViT of this width and depth; 0 positions stand for any number."""
    projection = state.get("patch_embed.proj.weight")
    width = patch = 0
    if projection is not None and projection.ndim == 4:
        width, patch = projection.shape[0], projection.shape[-1]
    depth = 1 + max((int(n.split(".")[1]) for n in state if re.match(r"blocks\.\d+\.", n)), default=0)
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (width, 3, patch, patch)}
    shapes |= {"patch_embed.proj.bias": (width,), "cls_token": (1, 1, width), "pos_embed": (1, 0, width)}
    for block in range(depth):
        for layer, (rows, columns) in _LAYERS.items():
            name = f"blocks.{block}.{layer}"
            shapes |= {f"{name}.weight": (rows * width, columns * width), f"{name}.bias": (rows * width,)}
        norms = (f"blocks.{block}.norm1", f"blocks.{block}.norm2")
        shapes |= {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def _convert(candidate: Candidate) -> tuple[State, tuple[str, ...]]:
    """The tensors under MAE's names and in its shapes, and notes on what was converted."""
    state, notes = dict(candidate.state), []
    # DINOv2's and BEiT's mask tokens are of the encoder's width, MAE's of its decoder's.
    if "decoder_pred.weight" not in state:
        state.pop("mask_token", None)
    if "norm.weight" not in state and {"fc_norm.weight", "fc_norm.bias"} <= state.keys():
        state |= {f"norm.{kind}": state[f"fc_norm.{kind}"] for kind in ("weight", "bias")}
        notes.append("it has no norm, like classifiers of mean-pooled patches: its fc_norm is used instead")
    name = "patch_embed.proj.weight"
    if name in state and state[name].ndim == 4 and state[name].shape[1] == 1:
        # A third for each channel: so the grey weight multiplies the mean of the three.
        state[name] = (state[name] / 3).expand(-1, 3, -1, -1).contiguous()
        notes.append(
            "its patch embedding takes grey images: here it gets the mean of the three normalised channels; "
            "it may have been trained with another normalisation"
        )
    return _fold_scales(state), tuple(notes)


def _fold_scales(state: State) -> State:
    """gamma (W x + b) = (gamma W) x + gamma b (Touvron et al. 2021, LayerScale)."""
    folded = {}
    for key, value in state.items():
        if not key.endswith(tuple(LAYER_SCALES)):
            folded[key] = value
    for key, gamma in state.items():
        for suffix, layer in LAYER_SCALES.items():
            name = key.removesuffix(suffix) + layer
            if key.endswith(suffix) and {f"{name}.weight", f"{name}.bias"} <= folded.keys():
                folded[f"{name}.weight"] = _scaled(gamma[:, None], folded[f"{name}.weight"])
                folded[f"{name}.bias"] = _scaled(gamma, folded[f"{name}.bias"])
    return folded


def _scaled(gamma: Tensor, value: Tensor) -> Tensor:
    return (value.float() * gamma.float()).to(gamma.dtype)
