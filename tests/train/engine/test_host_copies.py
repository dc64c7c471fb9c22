"""Copies of a state that training does not touch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict

import pytest
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


@pytest.mark.skipif(torch.__version__ < "2.15", reason="an older torch has no such setting")
@pytest.mark.parametrize(
    ("chosen", "settings"),
    [
        ("", "pinned_max_round_threshold_mb:64"),
        ("max_split_size_mb:200", "max_split_size_mb:200,pinned_max_round_threshold_mb:64"),
        ("pinned_max_round_threshold_mb:7", "pinned_max_round_threshold_mb:7"),
    ],
)
def test_page_locked_memory_is_not_rounded_up_and_a_user_s_choice_counts(chosen: str, settings: str) -> None:
    code = (
        "import torch; from retfound_dist.train.engine.host_copies import allocate_exact_sizes\n"
        "allocate_exact_sizes(); print(torch._C._accelerator_getAllocatorSettings())"
    )
    # In a process of its own: the settings are the process's.
    env = os.environ | {"PYTORCH_ALLOC_CONF": chosen}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == settings
