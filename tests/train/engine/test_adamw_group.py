"""A group before its first step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retfound_dist.train.engine.adamw_group import make_adamw_group


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp32_parameters_are_their_own_weights_and_bf16_ones_get_copies(dtype: torch.dtype) -> None:
    net = nn.Linear(3, 2).to(dtype)
    names = {parameter: name for name, parameter in net.named_parameters()}
    group = make_adamw_group(names, {"params": list(net.parameters()), "weight_decay": 0.05})
    assert group.names == ["weight", "bias"]
    assert group.weight_decay == 0.05
    for parameter, weight in zip(group.parameters, group.weights, strict=True):
        assert (weight is parameter) == (dtype == torch.float32)
        assert weight.dtype == torch.float32
        assert torch.equal(weight.to(dtype), parameter)
    for moment in (*group.exp_avgs, *group.exp_avg_sqs, *group.steps):
        assert moment.dtype == torch.float32
        assert not moment.requires_grad
        assert not moment.any()
