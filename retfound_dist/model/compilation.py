"""When and how a model is compiled."""

from __future__ import annotations

import shutil
from typing import Literal

import torch
from torch import nn

from retfound_dist.errors import ConfigError

COMPILERS = ("cc", "gcc", "clang")


def should_compile(setting: bool | Literal["auto"], device: torch.device, zero_stage: int) -> bool:
    """What `train.compile` comes to here; ConfigError when it is `true` and cannot be.

    `auto` compiles on GPUs where there is a C compiler. ZeRO 3 puts a model together layer by layer as it
    runs, which no graph of a whole step can hold.
    """
    if setting is False or (setting == "auto" and device.type != "cuda"):
        return False
    fault = ""
    if zero_stage == 3:
        fault = "ZeRO 3 cannot be compiled: set train.zero_stage=2, or train.compile=false"
    elif not any(map(shutil.which, COMPILERS)):
        fault = f"none of {', '.join(COMPILERS)} is on PATH: install a C compiler, or set train.compile=false"
    if fault and setting is True:
        raise ConfigError(f"train.compile=true: {fault}")
    return not fault


def compile_model(model: nn.Module) -> None:
    """Compile a model's forward in place: one graph, for inputs of one shape; names of weights stay.

    A break of the graph is an error. Only `forward` is compiled, for what calls it (DeepSpeed) has hooks
    around it. Another shape of input is compiled anew; odd ones go to `type(model).forward(model, ...)`.
    """
    model.forward = torch.compile(model.forward, fullgraph=True, dynamic=False)
