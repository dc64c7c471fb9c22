"""Copies of a training state in host memory, which training does not touch."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor


def copy_to_host(value: Any) -> Any:
    """A copy of tensors in dictionaries, lists and tuples; a GPU's are complete after `wait_for_copies`."""
    if isinstance(value, Tensor):
        return flatten_to_host([value]).view(value.shape)
    if isinstance(value, dict):
        return type(value)((key, copy_to_host(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(copy_to_host(item) for item in value)
    return deepcopy(value)


def flatten_to_host(tensors: Sequence[Tensor]) -> Tensor:
    """One flat copy of tensors of one type, end to end; a GPU's is complete after `wait_for_copies`."""
    counts = [tensor.numel() for tensor in tensors]
    # Page-locked, otherwise the host would wait for each copy.
    flat = torch.empty(sum(counts), dtype=tensors[0].dtype, pin_memory=tensors[0].is_cuda)
    for part, tensor in zip(torch.split(flat, counts), tensors, strict=True):
        part.view(tensor.shape).copy_(tensor.detach(), non_blocking=True)
    return flat


def wait_for_copies() -> None:
    """Wait until the queued copies are complete."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
