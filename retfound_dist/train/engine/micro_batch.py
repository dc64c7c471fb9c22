"""Finds the largest micro-batch that fits into memory: a size is predicted from shapes, then measured."""

from __future__ import annotations

import gc
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from retfound_dist.config.schema import Train
from retfound_dist.errors import TrainingError
from retfound_dist.estimate.gpu_memory import DeviceMemory, largest_micro_batch, peak_memory
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.train.engine.memory_meter import MemoryMeter, free_bytes
from retfound_dist.train.ranks.collectives import RankGroup

TOLERANCE = 1.05
"""A size that is expected to need up to this many times the free memory is measured too."""
OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""Parts of messages by which libraries (CUDA, the CPU allocator, cuBLAS) report that memory is used up."""


@dataclass(frozen=True)
class MicroBatchFit:
    """A micro-batch that was measured on every rank."""

    micro: int
    predicted: DeviceMemory
    measured: float
    """Bytes that its forward and backward pass needed."""

    def describe(self) -> str:
        """One line for a person."""
        measured, predicted = self.total / 1e9, self.predicted.total / 1e9
        return f"micro-batch {self.micro}: {measured:.1f} GB as measured, {predicted:.1f} GB as predicted"

    @property
    def total(self) -> float:
        """Bytes of a step, with the measured activations in place of the predicted ones."""
        return replace(self.predicted, activations=self.measured).total

    def lower_bound(self, micro: int) -> float:
        """Bytes that a step of another size needs at least, by the measured or predicted bytes per image."""
        scale = self.predicted.fragments / self.micro
        per_image = [scale * self.measured, scale * self.predicted.activations]
        return self.total + (micro - self.micro) * (min(per_image) if micro > self.micro else max(per_image))


def find_micro_batch(
    model: MaskedAutoencoder, train: Train, zero_stage: int, channels: int, group: RankGroup
) -> MicroBatchFit:
    """The largest micro-batch that every rank can hold, spread evenly over the passes of a step.

    The predicted size is measured first. Then larger ones are, until one does not fit or is expected to need
    much more; or smaller ones, until one fits. TrainingError when not even one image fits. Every rank must
    call it, with the same model, on its device and in the precision it will run in.
    """
    share = -(-train.global_batch // group.world.size)
    # Other sizes need as many passes as one of these, and only more padding.
    sizes = sorted({math.ceil(share / passes) for passes in range(1, share + 1)})
    # The model is in memory already, and the prediction counts it among the state: it counts as free here.
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    free = min(group.gather(free_bytes(group) + model_bytes))
    settings = _memory_settings(train, zero_stage, group)
    predicted_size = largest_micro_batch(model.config, free, max_micro_batch=share, **settings)
    first = max(0, bisect_right(sizes, predicted_size) - 1)

    def measure_fit(micro: int) -> MicroBatchFit:
        needed = max(group.gather(_measure_or_infinity(model, micro, channels, group)))
        passes = math.ceil(share / micro)
        return MicroBatchFit(
            micro, peak_memory(model.config, micro_batch=micro, passes=passes, **settings), needed
        )

    largest = _search(sizes, first, free, measure_fit)
    if largest is None:
        least = peak_memory(model.config, micro_batch=1, **settings)
        raise TrainingError(
            f"train.micro_batch='auto': a rank has {free / 1e9:.1f} GB, one image takes "
            f"{least.total / 1e9:.1f} GB, {least.state / 1e9:.1f} GB of it for the state: set "
            "train.activation_checkpointing=true, a higher train.zero_stage or "
            "train.offload_optimizer=true, or use more ranks"
        )
    return largest


def _search(
    sizes: list[int], first: int, free: float, measure_fit: Callable[[int], MicroBatchFit]
) -> MicroBatchFit | None:
    """The largest size that fits into `free` bytes, measured from `sizes[first]` on; None where none does."""
    largest: MicroBatchFit | None = None
    too_large: list[MicroBatchFit] = []
    # Indexes in `sizes`: up to `low` all fit, from `high` on none does.
    low, high, failures, index = -1, len(sizes), 0, first
    while low < index < high:
        fit = measure_fit(sizes[index])
        if fit.total <= free:
            largest, low = fit, index
        else:
            high = index
        # Nothing was measured where memory was used up. Steps down that double find a size that fits soon.
        if math.isinf(fit.measured):
            index, failures = max(low + 1, high - 2**failures), failures + 1
            continue
        too_large = too_large if largest is fit else [fit]
        fits = [*too_large, *([largest] if largest else [])]
        likely = [
            candidate
            for candidate in range(low + 1, high)
            if all(fit.lower_bound(sizes[candidate]) <= TOLERANCE * free for fit in fits)
        ]
        index = max([max(0, low), *likely])
    return largest


def _memory_settings(train: Train, zero_stage: int, group: RankGroup) -> dict[str, Any]:
    return {
        "ranks": group.world.size,
        "zero_stage": zero_stage,
        "precision": train.precision,
        "activation_checkpointing": train.activation_checkpointing,
        "offload_optimizer": train.offload_optimizer,
        "gpu": group.device.type == "cuda",
    }


def _measure_or_infinity(model: MaskedAutoencoder, micro: int, channels: int, group: RankGroup) -> float:
    """Bytes that a forward and a backward pass of `micro` images need; infinite where memory is used up.

    Ranks wait for each other's result, so a rank that runs out of memory must not fail.
    """
    try:
        needed = _peak_memory_bytes(model, micro, channels, group.device)
    # torch raises OutOfMemoryError for its own allocator alone; libraries below it raise RuntimeErrors.
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
            raise
        needed = math.inf
    model.zero_grad(set_to_none=True)
    # The traceback of an error of memory keeps the activations until it is collected.
    gc.collect()
    if group.device.type == "cuda":
        torch.cuda.empty_cache()
    return needed


def _peak_memory_bytes(model: MaskedAutoencoder, micro: int, channels: int, device: torch.device) -> float:
    """Bytes of memory at the peak of one forward and backward pass of `micro` images."""
    images = torch.zeros(micro, channels, *model.config.size, dtype=torch.uint8, device=device)
    noise = torch.rand(micro, model.patches, device=device)
    meter = MemoryMeter(device)
    model(images, noise).sum().backward()
    return float(meter.peak_bytes())
