"""Weights in and out: MAE and RETFound files, timm, safetensors, our committed checkpoints.

Inside, every set of weights bears MAE's key names. Files are read with `weights_only=True`; of
Python objects only `argparse.Namespace` (MAE's and RETFound's files hold their arguments) is let in.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from retfound_dist import commit, storage
from retfound_dist.errors import WeightsError
from retfound_dist.model.mae import ENCODERS, Encoder, MaskedAutoencoder
from retfound_dist.model.positions import resample_positions
from retfound_dist.schema import Model

State = dict[str, Tensor]
FORMATS = ("mae", "timm", "safetensors")
_WRAPPERS = ("model", "state_dict", "teacher", "module")
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.")
_HEAD = ("head.", "fc_norm.")
_DECODER = ("decoder", "mask_token")


@dataclass(frozen=True)
class Weights:
    """An encoder's weights, with the decoder's where the file has them."""

    origin: str
    """Where they were read."""
    state: State
    """MAE's key names; fp32 or as stored."""
    shape: Encoder
    image_size: int
    meta: dict[str, Any] = field(default_factory=dict)
    """Step, samples and config where a committed checkpoint says them."""

    @property
    def has_decoder(self) -> bool:
        """Whether reconstructions can be drawn."""
        return "decoder_pred.weight" in self.state


def read_weights(url: str) -> Weights:
    """Weights at a path or URL: a committed checkpoint's folder, `.safetensors`, `.pth` or `.bin`."""
    if commit.is_checkpoint(url):
        return _read_checkpoint(url)
    if not storage.exists(url):
        raise WeightsError(f"there are no weights at {url}: check the path, or give `none`")
    if storage.is_folder(url):
        raise WeightsError(
            f"{url} is a folder without {commit.COMMIT}: give a committed checkpoint or a weights file"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = url
        if not storage.is_local(url):
            path = str(Path(folder) / storage.name(url))
            storage.get_file(url, path)
        return _describe(url, _read_file(storage.local_path(path), url), {})


def _read_checkpoint(url: str) -> Weights:
    held = commit.read_commit(url)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / commit.WEIGHTS)
        commit.fetch(held, commit.WEIGHTS, path)
        state = safetensors.torch.load_file(path)
    return _describe(url, state, {"step": held.step, "samples": held.samples, "config": held.config})


def _read_file(path: str, url: str) -> State:
    try:
        if path.endswith(".safetensors"):
            state: State = safetensors.torch.load_file(path)
            return state
        with torch.serialization.safe_globals([argparse.Namespace]):
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, SafetensorError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        if isinstance(error, pickle.UnpicklingError):
            reason = "no pickle of plain tensors"
        raise WeightsError(
            f"{url} is not a weights file that can be read safely ({reason}); "
            "give a checkpoint folder, a .safetensors or a .pth of tensors"
        ) from error
    return _unwrap(tree, url)


def _unwrap(tree: Any, url: str) -> State:
    while isinstance(tree, Mapping):
        inner = next((tree[key] for key in _WRAPPERS if isinstance(tree.get(key), Mapping)), None)
        if inner is None:
            break
        tree = inner
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{url} holds a {type(tree).__name__}, not a set of named tensors")
    return {_plain(str(k)): v for k, v in tree.items() if isinstance(v, Tensor)}


def _plain(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _describe(url: str, state: State, meta: dict[str, Any]) -> Weights:
    """Read the encoder's shape off its tensors."""
    needed = ("patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.attn.qkv.weight")
    missing = [key for key in needed if key not in state]
    if missing:
        raise WeightsError(
            f"{url} holds no ViT encoder: {', '.join(missing)} not among its {len(state)} tensors"
        )
    projection = state["patch_embed.proj.weight"]
    width, patch = projection.shape[0], projection.shape[-1]
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    heads = 16 if width == 1280 else max(1, width // 64)
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    return Weights(url, state, Encoder(width, depth, heads, patch), side * patch, meta)


@dataclass(frozen=True)
class Loaded:
    """What became of a set of weights: names taken, left over and not found."""

    taken: tuple[str, ...]
    unused: tuple[str, ...]
    fresh: tuple[str, ...]

    def summary(self, origin: str) -> str:
        """One line for a person."""
        text = f"{len(self.taken)} tensors from {origin}"
        if self.unused:
            text += f"; not used: {_few(self.unused)}"
        if self.fresh:
            text += f"; starting afresh: {_few(self.fresh)}"
        return text


def load_into(model: nn.Module, weights: Weights, grid: tuple[int, int]) -> Loaded:
    """Copy weights into an autoencoder or a classifier; WeightsError unless the whole encoder fits.

    Positions are resampled to `grid`. A decoder of another shape, the head and `fc_norm` start afresh.
    """
    held = dict(weights.state)
    held["pos_embed"] = resample_positions(held["pos_embed"], grid)
    if "decoder_pos_embed" in held:
        held["decoder_pos_embed"] = resample_positions(held["decoder_pos_embed"], grid)
    own = model.state_dict()
    fits = {k: v for k, v in held.items() if k in own and own[k].shape == v.shape and not k.startswith(_HEAD)}
    encoder = [k for k in own if not k.startswith((*_HEAD, *_DECODER))]
    absent = [k for k in encoder if k not in fits]
    if absent:
        shapes = {k: tuple(held[k].shape) if k in held else "missing" for k in absent[:3]}
        why = ", ".join(f"{k} {shape} for {tuple(own[k].shape)}" for k, shape in shapes.items())
        raise WeightsError(
            f"{weights.origin} does not fit this encoder: {len(absent)} of {len(encoder)} tensors "
            f"do not match ({why}); "
            "choose the model.name the weights were made with"
        )
    decoder = [k for k in own if k.startswith(_DECODER)]
    if any(k not in fits for k in decoder):
        fits = {k: v for k, v in fits.items() if not k.startswith(_DECODER)}
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in fits.items()}, strict=False)
    unused = tuple(sorted(held.keys() - fits.keys()))
    return Loaded(tuple(sorted(fits)), unused, tuple(sorted(own.keys() - fits.keys())))


def _few(names: tuple[str, ...]) -> str:
    groups = sorted({name.split(".")[0] for name in names})
    return ", ".join(groups[:6]) + (f" and {len(groups) - 6} more" if len(groups) > 6 else "")


def autoencoder_from(weights: Weights) -> MaskedAutoencoder:
    """The autoencoder a checkpoint or file was saved from, in eval mode, ready to reconstruct."""
    if not weights.has_decoder:
        raise WeightsError(
            f"{weights.origin} holds an encoder without its decoder: nothing can be reconstructed"
        )
    if weights.meta:
        config = Model(**{**weights.meta["config"]["model"], "image_size": weights.image_size})
    else:
        config = _model_config(weights)
    model = MaskedAutoencoder(config)
    load_into(model, weights, model.grid)
    return model.eval()


def _model_config(weights: Weights) -> Model:
    names = [name for name, shape in ENCODERS.items() if shape == weights.shape]
    if not names:
        raise WeightsError(f"{weights.origin} holds an encoder of {weights.shape}, which has no name here")
    width = weights.state["decoder_embed.weight"].shape[0]
    depth = 1 + max(int(k.split(".")[1]) for k in weights.state if k.startswith("decoder_blocks."))
    heads = 16 if width % 16 == 0 and width >= 256 else max(1, width // 32)
    return Model(
        name=names[0],
        image_size=weights.image_size,
        decoder_width=width,
        decoder_depth=depth,
        decoder_heads=heads,
    )


def export(weights: Weights, kind: str, target: str) -> None:
    """Write weights for others to read.

    `mae`: a .pth with MAE's and RETFound's keys under `model`; `timm`: a .pth that
    `timm.create_model(...)` without a head loads strictly; `safetensors`: MAE's keys with the config
    in the header.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "weights")
        if kind == "mae":
            torch.save({"model": weights.state}, path)
        elif kind == "timm":
            torch.save(encoder_only(weights.state), path)
        elif kind == "safetensors":
            header = {"format": "pt", "config": json.dumps(weights.meta.get("config", {}))}
            safetensors.torch.save_file(
                {k: v.contiguous() for k, v in weights.state.items()}, path, metadata=header
            )
        else:
            raise WeightsError(f"--format {kind} is unknown: choose one of {', '.join(FORMATS)}")
        storage.put_file(path, target)


def encoder_only(state: Mapping[str, Tensor]) -> State:
    """What a plain timm ViT holds: no decoder, no mask token, no head."""
    return {k: v for k, v in state.items() if not k.startswith((*_DECODER, *_HEAD))}
