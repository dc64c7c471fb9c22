"""Exports weights: MAE's and RETFound's keys, timm, safetensors, or a folder for timm and its hub."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from retfound_dist.errors import WeightsError
from retfound_dist.estimate.model_shapes import TEST_RESIZE
from retfound_dist.io import storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.model.mae import IMAGENET_MEAN, IMAGENET_STD
from retfound_dist.model.weights.containers import DECODER_PREFIXES, State
from retfound_dist.model.weights.weight_files import HEAD_PREFIXES, Weights

HF_WEIGHTS, HF_CONFIG = "model.safetensors", "config.json"
FORMATS = ("mae", "timm", "safetensors", "hf")
ARCHITECTURES = {
    (384, 12, 16): "vit_small_patch16_224",
    (768, 12, 16): "vit_base_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1024, 24, 14): "vit_large_patch14_224",
    (1280, 32, 14): "vit_huge_patch14_224",
}
"""timm's names by width, depth and patch size. Others are a `vit_tiny_patch16_224` with `model_args`."""


def export(weights: Weights, kind: str, target: str) -> int:
    """Write weights in a format that other projects read; returns the size of the weights file in bytes.

    `mae`: a .pth with MAE's and RETFound's keys under `model`; `timm`: a .pth that
    `timm.create_model(...)` without a head loads strictly; `safetensors`: MAE's keys with the config
    in the header; `hf`: a folder (config.json, model.safetensors) for
    `timm.create_model("local-dir:FOLDER", pretrained=True)`, which can also be uploaded to a hub. Tensors
    are written as they were read.
    """
    if kind not in FORMATS:
        raise WeightsError(f"--format {kind} is unknown: choose one of {', '.join(FORMATS)}")
    # To local scratch first: a store takes whole files, and a failed write must leave nothing at the target.
    with new_temporary_folder() as folder:
        path = str(Path(folder) / "weights")
        if kind == "hf":
            safetensors.torch.save_file(
                _contiguous(encoder_only(weights.state)), path, metadata={"format": "pt"}
            )
            # The config last: timm does not load a folder without it, so a half-written folder is refused.
            storage.put_file(path, storage.join(target, HF_WEIGHTS))
            storage.write_json(storage.join(target, HF_CONFIG), hub_config(weights))
            return os.path.getsize(path)
        if kind == "mae":
            torch.save({"model": weights.state, "config": weights.meta.get("config", {})}, path)
        elif kind == "timm":
            torch.save(encoder_only(weights.state), path)
        else:
            header = {"format": "pt", "config": json.dumps(weights.meta.get("config", {}))}
            safetensors.torch.save_file(_contiguous(weights.state), path, metadata=header)
        storage.put_file(path, target)
        return os.path.getsize(path)


def encoder_only(state: State) -> State:
    """The tensors of a plain timm ViT: no decoder, no mask token, no head."""
    return {k: v for k, v in state.items() if not k.startswith((*DECODER_PREFIXES, *HEAD_PREFIXES))}


def hub_config(weights: Weights) -> Mapping[str, Any]:
    """timm's config.json: it describes the encoder and the preparation of its input.

    The model's output is the mean of the normed patch tokens, as `retfound embed` gives it.
    """
    shape = weights.shape
    height, width = (side * shape.patch for side in weights.grid)
    # All arguments, also those that the architecture implies: for shapes without a name, its own are wrong.
    arguments = {
        "img_size": [height, width],
        "patch_size": shape.patch,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "global_pool": "avg",
        "fc_norm": False,
    }
    return {
        "architecture": ARCHITECTURES.get((shape.width, shape.depth, shape.patch), "vit_tiny_patch16_224"),
        "num_classes": 0,
        "num_features": shape.width,
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, height, width],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": crop_pct(min(height, width)),
            "crop_mode": "center",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def crop_pct(side: int) -> float:
    """timm's `crop_pct` for a side of the input in pixels.

    Before the centre crop timm resizes to side / crop_pct, rounded down. That has to be `TEST_RESIZE`
    (256/224) times the side, rounded to the nearest pixel.
    """
    # Half a pixel more, if rounding down would give one pixel too few.
    resized = round(side * TEST_RESIZE)
    return 1 / TEST_RESIZE if math.floor(side * TEST_RESIZE) == resized else side / (resized + 0.5)


def _contiguous(state: State) -> State:
    # safetensors refuses tensors that are not contiguous.
    return {name: value.contiguous() for name, value in state.items()}
