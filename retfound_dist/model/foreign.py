"""Files made by others, in MAE's key names: MAE, RETFound (also of the DINOv2 kind), timm, plain ViTs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from retfound_dist.errors import WeightsError

State = dict[str, Tensor]
WRAPPERS = ("model", "state_dict", "teacher", "module")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.")
CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")
"""DINOv2's trainer holds its blocks in chunks: blocks.CHUNK.BLOCK, the block counted through."""
SCALES = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
"""LayerScale, and the layer whose output it scales."""
OTHER = re.compile(
    r"register_tokens|reg_token|dist_token|norm_pre\.|\.[qk]_norm\.|patch_embed\.norm\.|rel_pos"
)
"""Parts of other ViTs (registers, DeiT's distillation, CLIP, query norms) that would be left out unseen."""


def to_mae(tree: Any, url: str) -> State:
    """Named tensors of a file's tree, under MAE's names; WeightsError where there are none.

    LayerScale is folded into the layer before it and a grey patch embedding is spread over three channels:
    the function stays the same. A mask token without a decoder belongs to another kind of pretraining.
    """
    state = {_plain(str(k)): v for k, v in unwrap(tree, url).items() if isinstance(v, Tensor)}
    if held := next(filter(OTHER.search, state), None):
        raise WeightsError(
            f"{url} has {held}, which this ViT does not have: give a plain ViT, without registers"
        )
    if "decoder_pred.weight" not in state:
        state.pop("mask_token", None)
    return _three_channels(_fold_scales(state))


def unwrap(tree: Any, url: str) -> Mapping[str, Any]:
    """The mapping of names to tensors inside `model`, `state_dict`, `teacher`, ..."""
    while isinstance(tree, Mapping):
        inner = next((tree[key] for key in WRAPPERS if isinstance(tree.get(key), Mapping)), None)
        if inner is None:
            return tree
        tree = inner
    raise WeightsError(f"{url} holds a {type(tree).__name__}, not a set of named tensors")


def _plain(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return CHUNKED.sub(r"blocks.\1.", key)


def _fold_scales(state: State) -> State:
    """gamma (W x + b) = (gamma W) x + gamma b (Touvron et al. 2021, LayerScale)."""
    folded = {}
    for key, value in state.items():
        if not key.endswith(tuple(SCALES)):
            folded[key] = value
    for key, gamma in state.items():
        for suffix, layer in SCALES.items():
            if key.endswith(suffix):
                name = key.removesuffix(suffix) + layer
                folded[f"{name}.weight"] = (folded[f"{name}.weight"].float() * gamma.float()[:, None]).to(
                    gamma.dtype
                )
                folded[f"{name}.bias"] = (folded[f"{name}.bias"].float() * gamma.float()).to(gamma.dtype)
    return folded


def _three_channels(state: State) -> State:
    name = "patch_embed.proj.weight"
    if name in state and state[name].ndim == 4 and state[name].shape[1] == 1:
        return state | {name: (state[name] / 3).expand(-1, 3, -1, -1).contiguous()}
    return state
