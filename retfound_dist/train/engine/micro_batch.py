"""Finds the largest micro-batch that memory holds: predicted from shapes, then tried."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from retfound_dist.config.schema import Train
from retfound_dist.errors import TrainingError
from retfound_dist.estimate.gpu_memory import DeviceMemory, largest_micro_batch, peak_memory
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.train.ranks.collectives import RankGroup

LEEWAY = 1.05
"""A size that is predicted to need up to so many times the free memory is tried all the same."""
NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""Words by which errors of libraries (CUDA, the CPU allocator, cuBLAS) tell that memory has ended."""


@dataclass(frozen=True)
class MicroBatchFit:
    """A micro-batch that was tried on every rank, and what it took."""

    micro: int
    predicted: DeviceMemory
    tried: float
    """Bytes that its forward and backward pass took."""

    def describe(self) -> str:
        """One line for a person."""
        predicted, taken = self.predicted.total, self.total
        return (
            f"micro-batch {self.micro}: {taken / 1e9:.1f} GB as tried, {predicted / 1e9:.1f} GB as predicted"
        )

    @property
    def total(self) -> float:
        """Bytes of a step, with the measured activations in place of the predicted ones."""
        return replace(self.predicted, activations=self.tried).total

    def least(self, micro: int) -> float:
        """Bytes that a step of another size takes at least, by the measured or predicted bytes an image."""
        scale = self.predicted.fragments / self.micro
        image = [scale * self.tried, scale * self.predicted.activations]
        return self.total + (micro - self.micro) * (min(image) if micro > self.micro else max(image))


def find_micro_batch(
    model: MaskedAutoencoder, train: Train, zero_stage: int, channels: int, group: RankGroup
) -> MicroBatchFit:
    """The most images of a micro-batch that every rank can hold, spread evenly over the passes of a step.

    The predicted size is tried, then the next larger ones up to one that does not fit or is far from it, or
    smaller ones down to one that does. TrainingError when not even one image fits. Every rank must call it,
    with the same model, on its device and in the precision it will run in.
    """
    share = -(-train.global_batch // group.world.size)
    # Other sizes need as many passes as one of these, and only more padding.
    sizes = sorted({math.ceil(share / passes) for passes in range(1, share + 1)})
    # The model is in memory already, and the prediction counts it among the state: it counts as free here.
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    free = min(group.gather(free_bytes(group) + model_bytes))
    settings = _memory_settings(train, zero_stage, group)
    largest: MicroBatchFit | None = None
    refused: list[MicroBatchFit] = []
    fits, fails, ended = -1, len(sizes), 0  # places in `sizes`; how often memory ended
    place = max(
        0, bisect_right(sizes, largest_micro_batch(model.config, free, max_micro_batch=share, **settings)) - 1
    )
    while fits < place < fails:
        tried = max(group.gather(_try(model, sizes[place], channels, group)))
        passes = math.ceil(share / sizes[place])
        fit = MicroBatchFit(
            sizes[place],
            peak_memory(model.config, micro_batch=sizes[place], passes=passes, **settings),
            tried,
        )
        if fit.total <= free:
            largest, fits = fit, place
        else:
            fails = place
        # Nothing was measured where memory ended. Steps down that double find a size that fits in few trials.
        if math.isinf(tried):
            place, ended = max(fits + 1, fails - 2**ended), ended + 1
            continue
        refused = refused if largest is fit else [fit]
        known = [*refused, *([largest] if largest else [])]
        between = range(fits + 1, fails)
        hopeful = [p for p in between if all(fit.least(sizes[p]) <= LEEWAY * free for fit in known)]
        place = max([max(0, fits), *hopeful])
    if largest is None:
        least = peak_memory(model.config, micro_batch=1, **settings)
        raise TrainingError(
            f"train.micro_batch='auto': a rank has {free / 1e9:.1f} GB, one image takes "
            f"{least.total / 1e9:.1f} GB, {least.state / 1e9:.1f} GB of it state: set "
            "train.activation_checkpointing=true, a higher train.zero_stage or "
            "train.offload_optimizer=true, or use more ranks"
        )
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


def _try(model: MaskedAutoencoder, micro: int, channels: int, group: RankGroup) -> float:
    """Bytes that a forward and a backward pass of so many images take; infinite when memory ends.

    Ranks wait for each other's answer: memory that ends on one of them must not end that one.
    """
    try:
        taken = _measure(model, micro, channels, group.device)
    # torch raises OutOfMemoryError for its own allocator alone; libraries below it raise RuntimeErrors.
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in NO_MEMORY):
            raise
        taken = math.inf
    model.zero_grad(set_to_none=True)
    # The traceback of an error that ended memory holds the activations until it is collected.
    gc.collect()
    if group.device.type == "cuda":
        torch.cuda.empty_cache()
    return taken


def _measure(model: MaskedAutoencoder, micro: int, channels: int, device: torch.device) -> float:
    images = torch.zeros(micro, channels, *model.config.size, dtype=torch.uint8, device=device)
    noise = torch.rand(micro, model.patches, device=device)
    meter = Meter(device)
    model(images, noise).sum().backward()
    return float(meter.taken())


class Meter:
    """Memory taken at the fullest moment from its making on: of a GPU's allocator, or resident memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._before = torch.cuda.memory_allocated(device)
        else:
            release_freed_memory()
            self._before = _status("VmRSS")
        self.reset()

    def reset(self) -> None:
        """The fullest moment is now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                # Linux: sets VmHWM, the peak, to what is resident now (man proc, clear_refs).
                Path("/proc/self/clear_refs").write_text("5")

    def taken(self) -> int:
        """Bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self._before
        return _status("VmHWM") - self._before


def release_freed_memory() -> None:
    """Have the C library return freed memory to the system; does nothing without glibc."""
    # glibc keeps freed memory for itself, so resident memory would tell of what is free already.
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is none."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    return 0


def free_bytes(group: RankGroup) -> float:
    """Memory that a rank may use: of its GPU, or its part of this host's."""
    if group.device.type == "cuda":
        return float(torch.cuda.mem_get_info(group.device)[0])
    free = math.inf
    with suppress(OSError), open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
        free = 1024 * float(lines["MemAvailable"].split()[0])
    # A container or a Slurm job may use less than the host has; "max" (no limit) is no number and is passed
    # over.
    folder = "/sys/fs/cgroup/memory"
    with suppress(OSError, ValueError), open(f"{folder}.max") as most, open(f"{folder}.current") as now:
        free = min(free, float(most.read()) - float(now.read()))
    if math.isinf(free):
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    return free / group.world.local_size
