"""Decides whether a model is compiled, and compiles it."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from retfound_dist.errors import ConfigError
from retfound_dist.model.mae import MaskedAutoencoder

# Triton compiles a launcher for each kernel with a C compiler, when the kernel is first used.
COMPILERS = ("cc", "gcc", "clang")
PYTHON_HEADER = os.path.join(sysconfig.get_paths()["include"], "Python.h")
"""Triton's launchers include it. Debian's python3 is without it."""


def should_compile(setting: bool | Literal["auto"], device: torch.device, zero_stage: int) -> bool:
    """Whether to compile, from `train.compile`; ConfigError if it is `true` and compiling is impossible.

    `auto` compiles on GPUs if there are a C compiler and Python's headers. ZeRO 3 gathers weights layer by
    layer in the forward pass, which is impossible within one graph.
    """
    # On CPUs `auto` means no: compiling took 50 s, and the speed changed by -6 % to +14 % (docs/model.md).
    if setting is False or (setting == "auto" and device.type != "cuda"):
        return False
    fault = ""
    if zero_stage == 3:
        fault = "ZeRO 3 cannot be compiled: set train.zero_stage=2, or train.compile=false"
    elif not any(map(shutil.which, COMPILERS)):
        fault = f"none of {', '.join(COMPILERS)} is on PATH: install a C compiler, or set train.compile=false"
    elif not os.path.exists(PYTHON_HEADER):
        fault = (
            f"{PYTHON_HEADER} does not exist: install Python's headers (Debian: python3-dev), "
            "or set train.compile=false"
        )
    if fault and setting is True:
        raise ConfigError(f"train.compile=true: {fault}")
    return not fault


PARTS = ("embed_visible", "enter_decoder", "removed_loss")
"""Methods of `MaskedAutoencoder` that are compiled, beside `forward` of each block."""
GRAPHS = len(PARTS) + 2
"""Graphs of a compiled step: all blocks of the encoder share one, and all of the decoder."""


def compile_model(model: MaskedAutoencoder) -> None:
    """Compile a model in place, for inputs of one shape. Names of weights stay the same.

    A graph break is an error. Another shape of input is compiled again; rare shapes can use `uncompiled`.
    """
    # Not in one piece: the gradients of one graph are all complete at its end, so ZeRO 2 could not send any
    # during the backward pass. And equal blocks are then compiled once, in seconds instead of a minute.
    for part in PARTS:
        setattr(model, part, _compiled(getattr(model, part)))
    for block in (*model.blocks, *model.decoder_blocks):
        # `forward`, not the module: a compiled module's weights have other names, and DeepSpeed's hooks
        # around the module have to stay outside the graph.
        block.forward = _compiled(block.forward)


@contextmanager
def uncompiled(model: MaskedAutoencoder) -> Iterator[None]:
    """In the block the model computes without compilation."""
    replaced = [(model, part) for part in PARTS]
    replaced += [(block, "forward") for block in (*model.blocks, *model.decoder_blocks)]
    # The compiled functions are attributes of the objects; without them the methods of the classes count.
    compiled = [vars(owner).pop(name, None) for owner, name in replaced]
    try:
        yield
    finally:
        for (owner, name), function in zip(replaced, compiled, strict=True):
            if function is not None:
                setattr(owner, name, function)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)
