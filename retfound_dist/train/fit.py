"""The largest micro-batch that memory holds: what a forward pass keeps is measured, the rest computed."""

from __future__ import annotations

import math
import os
from contextlib import suppress

import torch
from torch import Tensor, nn

from retfound_dist.errors import TrainingError
from retfound_dist.schema import Train
from retfound_dist.train.group import Group

MARGIN = 1.25
"""Memory asked for over what was measured: the backward pass, buckets, fragmentation."""
HALF, RECOMPUTED = 0.55, 2.0
"""What bf16 keeps of what fp32 does, and what a block that is computed again adds to the blocks' inputs."""


def find_micro_batch(
    model: nn.Module,
    train: Train,
    zero_stage: int,
    channels: int,
    size: tuple[int, int],
    patches: int,
    group: Group,
) -> int:
    """The most images of a micro-batch that every rank can hold, spread evenly over the passes of a step.

    TrainingError when not even one image fits. Every rank must call it, with the same model on the CPU.
    """
    share = -(-train.global_batch // group.world.size)
    one, two = (_kept_bytes(model, *_images(m, channels, size, patches)) for m in (1, 2))
    scale = MARGIN * (HALF if train.precision == "bf16" else 1.0)
    scale *= RECOMPUTED if train.activation_checkpointing else 1.0
    state = state_bytes(sum(p.numel() for p in model.parameters()), train, zero_stage, group.world.size)
    free = free_bytes(group) - state
    most = min(share, math.floor((free / scale - (one - (two - one))) / max(1, two - one)))
    most = int(min(group.gather(most)))
    if most < 1:
        raise TrainingError(
            f"train.micro_batch='auto': a rank has {free / 1e9:.1f} GB beside {state / 1e9:.1f} GB of state, "
            f"one image takes {scale * one / 1e9:.1f} GB: set train.activation_checkpointing=true, "
            "a higher train.zero_stage or train.offload_optimizer=true, or use more ranks"
        )
    passes = math.ceil(share / most)
    return math.ceil(share / passes)


def state_bytes(parameters: int, train: Train, zero_stage: int, ranks: int) -> float:
    """Weights, gradients and AdamW's state of one rank in bytes, on the device (Rajbhandari et al. 2020)."""
    weights = 2 if train.precision == "bf16" else 4
    weights_held = weights / ranks if zero_stage == 3 else weights
    gradients = weights + (4 / ranks if zero_stage >= 2 else 4)
    optimizer = 0 if train.offload_optimizer else 12 / ranks
    return parameters * (weights_held + gradients + optimizer)


def free_bytes(group: Group) -> float:
    """Memory that a rank may use: of its GPU, or its part of this host's."""
    if group.device.type == "cuda":
        return float(torch.cuda.mem_get_info(group.device)[0])
    free = math.inf
    with suppress(OSError), open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
        free = 1024 * float(lines["MemAvailable"].split()[0])
    folder = "/sys/fs/cgroup/memory"
    with suppress(OSError, ValueError), open(f"{folder}.max") as most, open(f"{folder}.current") as now:
        free = min(free, float(most.read()) - float(now.read()))
    if math.isinf(free):
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    return free / group.world.local_size


def _images(count: int, channels: int, size: tuple[int, int], patches: int) -> tuple[Tensor, Tensor]:
    images = torch.zeros(count, channels, *size, dtype=torch.uint8)
    return images, torch.rand(count, patches, generator=torch.Generator().manual_seed(0))


def _kept_bytes(model: nn.Module, images: Tensor, noise: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    def keep_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        keep(inputs[0])  # all that is kept of a block that is computed again

    blocks = [m for parent in model.modules() if isinstance(parent, nn.ModuleList) for m in parent]
    hooks = [block.register_forward_pre_hook(keep_input) for block in blocks]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = model(images, noise).sum()
    del loss
    for hook in hooks:
        hook.remove()
    return sum(kept.values())
