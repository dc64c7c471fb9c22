"""AdamW's state of one parameter group, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class AdamWGroup:
    """Parameters with one weight decay; all lists are in the same order."""

    names: list[str]
    parameters: list[nn.Parameter]
    """In the working precision."""
    weights: list[Tensor]
    """In fp32: the parameters themselves where they are in fp32 already."""
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]
    """Steps of each parameter. They stay equal; torch's AdamW counts them one by one."""
    weight_decay: float
    lr: float = 0.0


def make_adamw_group(names: Mapping[nn.Parameter, str], settings: Mapping[str, Any]) -> AdamWGroup:
    """A group before its first step. `settings`: as torch's AdamW takes it, with `params`."""
    parameters = list(settings["params"])
    weights = [p if p.dtype == torch.float32 else p.detach().float() for p in parameters]
    return AdamWGroup(
        names=[names[parameter] for parameter in parameters],
        parameters=parameters,
        weights=weights,
        exp_avgs=[torch.zeros_like(weight, requires_grad=False) for weight in weights],
        exp_avg_sqs=[torch.zeros_like(weight, requires_grad=False) for weight in weights],
        steps=[torch.zeros((), device=weight.device) for weight in weights],
        weight_decay=settings["weight_decay"],
    )
