"""Writes the weights of one network of a classifier for timm: a .pth file, or a folder for timm and its hub.

Low-rank adapters are merged into the weights. timm builds the network from a name and arguments; before
anything is written, this is done once, and the logits must agree with the classifier's.

Shapes: B batch, S the side of the input, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.classifier.classifier import Classifier
from retfound_dist.export.merged_adapters import merged_model
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.backbones.timm_backbone import published_config
from retfound_dist.model.weights.export import ARCHITECTURES, HF_WEIGHTS, crop_pct

TOLERANCE = 1e-4
"""Largest difference between logits of timm's network and of the classifier's."""


@dataclass(frozen=True)
class TimmNetwork:
    """A network as timm builds it: `timm.create_model(architecture, **arguments)`."""

    architecture: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    image_size: int

    @property
    def outputs(self) -> int:
        """Number of logits."""
        return int(self.arguments["num_classes"])


def timm_network(classifier: Classifier, seed: int) -> TimmNetwork:
    """The network of one seed. WeightsError where timm cannot build it."""
    model: Any = classifier.models[classifier.seeds.index(seed)]
    merged = merged_model(model)
    outputs = int(model.num_classes)
    architecture, arguments = _arguments(classifier, outputs)
    backbone = classifier.backbone
    network = TimmNetwork(
        architecture,
        arguments,
        {name: value.detach().cpu().contiguous().clone() for name, value in merged.state_dict().items()},
        backbone.preparation.mean,
        backbone.preparation.std,
        backbone.preparation.interpolation,
        classifier.image_size,
    )
    _check_rebuilt(network, model, classifier)
    return network


def write_pth(network: TimmNetwork, path: str) -> None:
    """The tensors as a .pth file, which `load_state_dict` of timm's network takes strictly."""
    torch.save(network.state, path)


def write_folder(network: TimmNetwork, folder: Path) -> None:
    """model.safetensors, without the config that `hub_config` gives."""
    save_file(network.state, folder / HF_WEIGHTS, metadata={"format": "pt"})


def hub_config(network: TimmNetwork, label_names: list[str]) -> Mapping[str, Any]:
    """timm's config.json: the network, the names of its outputs and the preparation of its input."""
    arguments = {name: value for name, value in network.arguments.items() if name != "num_classes"}
    size = [3, network.image_size, network.image_size]
    published = published_config(network.architecture).to_dict(remove_source=True, remove_null=True)
    kept = {name: published[name] for name in ("first_conv", "classifier") if name in published}
    return {
        "architecture": network.architecture,
        "num_classes": network.outputs,
        "label_names": label_names,
        "model_args": arguments,
        "pretrained_cfg": {
            **kept,
            "input_size": size,
            "fixed_input_size": "img_size" in arguments,
            "interpolation": network.interpolation,
            "crop_pct": crop_pct(network.image_size),
            "crop_mode": "center",
            "mean": list(network.mean),
            "std": list(network.std),
            "num_classes": network.outputs,
            "pool_size": None,
            # The tensors have timm's own names already.
            "custom_load": False,
        },
    }


def _arguments(classifier: Classifier, outputs: int) -> tuple[str, dict[str, Any]]:
    """timm's name of the architecture, and the arguments of `timm.create_model`."""
    backbone, side = classifier.backbone, classifier.image_size
    if not isinstance(backbone, PlainVit):
        fixed = published_config(backbone.family).fixed_input_size
        return backbone.family, {"num_classes": outputs, **({"img_size": side} if fixed else {})}
    shape, variant = backbone.shape, backbone.variant
    if not variant.last_skip:
        raise WeightsError(
            f"timm has no {variant.family}, so it cannot load this classifier: choose --format onnx or "
            "torchscript"
        )
    name = ARCHITECTURES.get((shape.width, shape.depth, shape.patch), "vit_tiny_patch16_224")
    arguments = {
        "num_classes": outputs,
        "img_size": side,
        "patch_size": shape.patch,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "global_pool": "avg",
    }
    more = {"reg_tokens": variant.prefix_tokens - 1} if variant.prefix_tokens > 1 else {}
    return name, {**arguments, **more}


@torch.inference_mode()
def _check_rebuilt(network: TimmNetwork, model: Any, classifier: Classifier) -> None:
    """WeightsError where timm's network does not take the tensors, or gives other logits."""
    side = network.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, side, side), dtype=np.uint8)
    normalised = classifier.input_layer(torch.from_numpy(pixels))
    try:
        rebuilt = timm.create_model(network.architecture, **network.arguments).eval()
        rebuilt.load_state_dict(network.state, strict=True)
        difference = float((rebuilt(normalised) - model(normalised)).abs().max())
    except (RuntimeError, TypeError, AssertionError) as error:
        raise WeightsError(
            f"timm's {network.architecture} does not take the weights of this classifier "
            f"({str(error).splitlines()[0]}): choose --format onnx or torchscript"
        ) from error
    if not difference <= TOLERANCE:
        raise WeightsError(
            f"timm's {network.architecture} gives other logits than this classifier (by {difference:.2g}): "
            "choose --format onnx or torchscript"
        )
