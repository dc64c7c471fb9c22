"""Reads weights (MAE and RETFound files, timm, safetensors, checkpoints) and loads them into models.

After reading, all weights have MAE's key names (`foreign_layouts.py`). No file can run code
(`safe_unpickle.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from retfound_dist.config.loading import build
from retfound_dist.config.schema import Model
from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.formats import checkpoint_folder, url_kinds
from retfound_dist.io import storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.model.mae import ENCODERS, EncoderShape, MaskedAutoencoder
from retfound_dist.model.positions import resample_positions
from retfound_dist.model.vit import PLAIN, VitVariant
from retfound_dist.model.weights import timm_hub
from retfound_dist.model.weights.containers import DECODER_PREFIXES, State
from retfound_dist.model.weights.foreign_layouts import ForeignEncoder, convert_to_mae, encoder_fault
from retfound_dist.model.weights.model_sources import parse
from retfound_dist.model.weights.tensor_file import TensorFile, read_local, read_tensor_file
from retfound_dist.model.weights.vit_relatives import read_relative

# These belong to a task, not to the encoder.
HEAD_PREFIXES = ("head.", "fc_norm.")
MOCO, MOCO_SMALL = {"base_encoder", "momentum_encoder"}, 384
"""MoCo v3's names, and the width at which it has 12 heads (its `vits.py`) instead of 6.

The number of heads cannot be seen from the tensors.
"""


@dataclass(frozen=True)
class Weights:
    """An encoder's weights, with the decoder's if the file has them."""

    origin: str
    """Where they were read from."""
    state: State
    """Tensors under MAE's key names, in the stored precision."""
    shape: EncoderShape
    grid: tuple[int, int]
    """Rows and columns of patches."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Step, samples and config of a committed checkpoint; only the config of an exported file."""
    part: str = ""
    """Container and prefix in a file of another project, such as `teacher.backbone`; empty: the top level."""
    other_names: tuple[str, ...] = ()
    """Names of the other tensors in the same container."""
    notes: tuple[str, ...] = ()
    """Lines for the user on what was chosen or converted when they were read."""
    sha256: str = ""
    """Of the file they were read from, computed from the bytes that were read."""
    variant: VitVariant = PLAIN
    """How the encoder differs from MAE's."""

    @property
    def image_size(self) -> int:
        """Side in pixels of a square with the same number of patches; approximate for other inputs."""
        return math.isqrt(self.grid[0] * self.grid[1]) * self.shape.patch

    @property
    def has_decoder(self) -> bool:
        """Whether reconstructions can be drawn."""
        return "decoder_pred.weight" in self.state

    @property
    def place(self) -> str:
        """The file, and the part of it."""
        return f"{self.origin} ({self.part})" if self.part else self.origin

    @property
    def remark(self) -> str:
        """A line on how a file of another project was read; empty if nothing was chosen or converted."""
        return "; ".join([f"weights: {self.place}", *self.notes]) if self.part or self.notes else ""


def split_part(url: str) -> tuple[str, str]:
    """Split `FILE#PART` into file and part. The name of an existing file may contain a #."""
    name, mark, part = url.rpartition("#")
    return (name, part) if mark and part and not storage.exists(url) else (url, "")


def read_weights(url: str) -> Weights:
    """Read weights from a path or URL, or timm's by the name of a model.

    A path is the folder of a committed checkpoint, or a `.safetensors`, `.pth` or `.bin` file. `FILE#PART`
    selects one of several encoders in a file.
    """
    if parse(url) is not None:
        raise WeightsError(
            f"{url} is a name for `evaluate`, `compare`, `watch` and `embed`: here give the path of a "
            "checkpoint, or of a file with a plain ViT"
        )
    if checkpoint_folder.is_checkpoint(url):
        return _read_checkpoint(url)
    origin, (url, part) = url, split_part(url)
    # A file is preferred to a timm model of the same name, because the user can see it.
    if not storage.exists(url):
        if timm_hub.is_timm_model(url):
            return plain_vit_of(read_local(timm_hub.weights_file(url), url), url, url, part)
        raise WeightsError(url_kinds.wrong_kind_message(url, url_kinds.WEIGHTS))
    return plain_vit_of(read_tensor_file(url), origin, url, part)


def plain_vit_of(file: TensorFile, origin: str, url: str, part: str) -> Weights:
    """The plain ViT in a file that was read from `url`; WeightsError if it holds none.

    `origin` is how the user named it, with its part.
    """
    try:
        encoder = convert_to_mae(file.tree, url, part)
    except WeightsError as error:
        # The family's name says more than a list of missing tensors.
        if relative := read_relative(file.tree, url, part):
            raise WeightsError(
                f"{url} holds {relative.variant.family}'s encoder, without a decoder of MAE. Only "
                "`evaluate`, `compare`, `watch` and `embed` can use it: here give a checkpoint or a plain ViT"
            ) from error
        raise
    meta = {"config": file.config} if file.config else {}
    return replace(_describe_foreign(origin, encoder, meta), sha256=file.sha256)


def _read_checkpoint(url: str) -> Weights:
    with new_temporary_folder() as folder:
        path = str(Path(folder) / checkpoint_folder.WEIGHTS)
        commit = checkpoint_folder.fetch_weights(url, path)
        state = safetensors.torch.load_file(path)
    meta = {"step": commit.step, "samples": commit.samples, "config": commit.config}
    return replace(_describe(url, state, meta), sha256=commit.files[commit.weights].sha256)


def _describe_foreign(url: str, encoder: ForeignEncoder, meta: dict[str, Any]) -> Weights:
    """The weights of a converted file, with its part and the notes on its conversion."""
    weights, notes = _describe(url, encoder.state, meta), encoder.notes
    if weights.shape.width == MOCO_SMALL and MOCO & set(encoder.part.split(".")):
        weights = replace(weights, shape=replace(weights.shape, heads=12))
        notes = (*notes, "read with 12 heads, as MoCo v3's ViT-S has them")
    return replace(weights, part=encoder.part, other_names=encoder.other_names, notes=notes)


def _describe(url: str, state: State, meta: dict[str, Any]) -> Weights:
    """The weights, with the encoder's shape from its tensors."""
    if reason := encoder_fault(state):
        raise WeightsError(f"{url} holds no ViT encoder that can be used: {reason}")
    projection = state["patch_embed.proj.weight"]
    width, patch = projection.shape[0], projection.shape[-1]
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    # The number of heads cannot be seen from the tensors. MAE's and RETFound's ViTs have 64 channels a head;
    # ViT-H has 80.
    heads = 16 if width == 1280 else max(1, width // 64)
    grid = _grid(url, state["pos_embed"].shape[1] - 1, patch, meta)
    return Weights(url, state, EncoderShape(width, depth, heads, patch), grid, meta)


def _grid(url: str, patches: int, patch: int, meta: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns of patches: from the config, else a square."""
    # A config is used only if it agrees with the tensors.
    if meta.get("config"):
        rows, columns = (side // patch for side in _model_section(meta, url).size)
        if rows * columns == patches:
            return rows, columns
    side = math.isqrt(patches)
    if side * side != patches:
        raise WeightsError(
            f"{url} holds positions for {patches} patches, which is no square, and does not state its grid: "
            "give the checkpoint itself, or its safetensors export"
        )
    return side, side


def _model_section(meta: dict[str, Any], where: str) -> Model:
    """The section `model` of a config from JSON; WeightsError if it cannot be used."""
    config = meta["config"]
    section = config.get("model") if isinstance(config, dict) else None
    if not isinstance(section, dict):
        raise WeightsError(f"the config in {where} has no section model: use another checkpoint or file")
    try:
        return build(Model, section, "model")
    except ConfigError as error:
        raise WeightsError(
            f"the config in {where} cannot be used: {error}; use another checkpoint or file"
        ) from error


@dataclass(frozen=True)
class LoadReport:
    """The result of loading weights: names of tensors."""

    loaded: tuple[str, ...]
    unused: tuple[str, ...]
    """In the file, but not loaded."""
    initialised: tuple[str, ...]
    """In the model, but not loaded: they keep their initial values."""

    def summary(self, weights: Weights) -> str:
        """One line for the user."""
        text = f"{len(self.loaded)} tensors from {weights.place}"
        if self.unused:
            text += f"; not used: {_short_list(self.unused)}"
        if self.initialised:
            text += f"; newly initialised: {_short_list(self.initialised)}"
        return "; ".join([text, *weights.notes])


def load_into(model: nn.Module, weights: Weights, grid: tuple[int, int]) -> LoadReport:
    """Copy weights into an autoencoder or a classifier; WeightsError unless the whole encoder fits.

    Positions are resampled to `grid`. A decoder of another shape, the head and `fc_norm` are not loaded.
    """
    state = dict(weights.state)
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in state:
            state[name] = resample_positions(state[name], weights.grid, grid)
    target = model.state_dict()
    same_shape = {k: v for k, v in state.items() if k in target and target[k].shape == v.shape}
    fits = {k: v for k, v in same_shape.items() if not k.startswith(HEAD_PREFIXES)}
    # An incomplete encoder is refused: such a network trains, and nobody sees why its results are bad.
    encoder = [k for k in target if not k.startswith((*HEAD_PREFIXES, *DECODER_PREFIXES))]
    absent = [k for k in encoder if k not in fits]
    if absent:
        shapes = {k: tuple(state[k].shape) if k in state else "missing" for k in absent[:3]}
        examples = ", ".join(f"{k} {shape} for {tuple(target[k].shape)}" for k, shape in shapes.items())
        raise WeightsError(
            f"{weights.place} does not fit this encoder: {len(absent)} of {len(encoder)} tensors "
            f"do not match ({examples}); choose the model.name that the weights were trained with"
        )
    # A decoder is loaded completely or not at all: blocks of one depth make no sense in another.
    decoder = [k for k in target if k.startswith(DECODER_PREFIXES)]
    if any(k not in fits for k in decoder):
        fits = {k: v for k, v in fits.items() if not k.startswith(DECODER_PREFIXES)}
    model.load_state_dict({k: v.to(target[k].dtype) for k, v in fits.items()}, strict=False)
    unused = tuple(sorted((state.keys() | set(weights.other_names)) - fits.keys()))
    return LoadReport(tuple(sorted(fits)), unused, tuple(sorted(target.keys() - fits.keys())))


def _decoder_size(weights: Weights) -> tuple[int, int]:
    """Width and depth of the decoder, from its tensors."""
    width = weights.state["decoder_embed.weight"].shape[0]
    return width, 1 + max(int(k.split(".")[1]) for k in weights.state if k.startswith("decoder_blocks."))


def _short_list(names: tuple[str, ...]) -> str:
    groups = sorted({name.split(".")[0] for name in names})
    return ", ".join(groups[:6]) + (f" and {len(groups) - 6} more" if len(groups) > 6 else "")


def autoencoder_from(weights: Weights) -> MaskedAutoencoder:
    """The autoencoder with these weights, in eval mode, to reconstruct images."""
    if not weights.has_decoder:
        raise WeightsError(
            f"{weights.origin} holds an encoder without its decoder, so it cannot reconstruct images: "
            "give a checkpoint, or an export with --format mae or safetensors"
        )
    config = _model_section(weights.meta, weights.origin) if weights.meta else _model_config(weights)
    width, depth = _decoder_size(weights)
    if (config.decoder_width, config.decoder_depth) != (width, depth) or width % config.decoder_heads:
        raise WeightsError(
            f"{weights.origin} holds a decoder of width {width} and depth {depth}, but its config says width "
            f"{config.decoder_width}, depth {config.decoder_depth} and {config.decoder_heads} heads: "
            "use another checkpoint or file"
        )
    model = MaskedAutoencoder(config)
    load_into(model, weights, model.grid)
    return model.eval()


def _model_config(weights: Weights) -> Model:
    """Settings of the model for a file without a config. Its grid is square."""
    names = [name for name, shape in ENCODERS.items() if shape == weights.shape]
    if not names:
        raise WeightsError(
            f"{weights.origin} holds an encoder of {weights.shape}, which is not supported: "
            f"give one of {', '.join(ENCODERS)}"
        )
    width, depth = _decoder_size(weights)
    # MAE's decoders have 16 heads at a width of 512: 32 channels a head.
    heads = 16 if width % 16 == 0 and width >= 256 else max(1, width // 32)
    return Model(
        name=names[0],
        image_size=weights.image_size,
        decoder_width=width,
        decoder_depth=depth,
        decoder_heads=heads,
    )
