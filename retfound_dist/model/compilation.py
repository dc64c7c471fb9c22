"""Decides whether a model is compiled, and compiles it."""

from __future__ import annotations

import os
import shutil
import sysconfig
from typing import Literal

import torch
from torch import nn

from retfound_dist.errors import ConfigError

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


def compile_model(model: nn.Module) -> None:
    """Compile a model's forward in place: one graph, for inputs of one shape. Names of weights stay the same.

    A graph break is an error. Another shape of input is compiled again; rare shapes can use
    `type(model).forward(model, ...)`, which is not compiled.
    """
    # `forward`, not the module: `torch.compile(model)` would wrap it and prefix every weight with
    # `_orig_mod.`. And DeepSpeed's hooks around the module have to stay outside the graph.
    model.forward = torch.compile(model.forward, fullgraph=True, dynamic=False)
