"""Copies of a state that training does not touch."""

from __future__ import annotations

from collections import OrderedDict

import torch

from retfound_dist.train.engine.host_copies import copy_to_host, flatten_to_host, wait_for_copies


def test_a_copy_keeps_structure_and_bits_and_shares_no_memory() -> None:
    weight, scalar = torch.randn(2, 3, requires_grad=True), torch.tensor(4.0)
    state = OrderedDict(a=[weight, (scalar, "text")], b={"rows": [1, 2]}, shape=torch.Size([2, 3]))
    copy = copy_to_host(state)
    wait_for_copies()
    assert type(copy) is OrderedDict
    assert torch.equal(copy["a"][0], weight)
    assert not copy["a"][0].requires_grad
    assert copy["a"][1][0].shape == ()
    assert copy["shape"] == torch.Size([2, 3])
    assert type(copy["shape"]) is torch.Size
    with torch.no_grad():
        weight.zero_()
    scalar.zero_()
    state["b"]["rows"].append(3)
    assert copy["a"][0].abs().sum() > 0
    assert float(copy["a"][1][0]) == 4
    assert copy["b"] == {"rows": [1, 2]}


def test_tensors_are_laid_end_to_end_in_their_order() -> None:
    first, second = torch.arange(6.0).view(2, 3), torch.arange(6.0, 10.0)
    assert torch.equal(flatten_to_host([first.t().contiguous().t(), second]), torch.arange(10.0))
    assert flatten_to_host([first.bfloat16()]).dtype == torch.bfloat16
