"""How many loader processes a rank needs: `data.workers="auto"`."""

from __future__ import annotations

import math

from retfound_dist.config.schema import Model
from retfound_dist.estimate.model_shapes import forward_flops

IMAGES_PER_S = 900.0
"""Images that one core decodes and crops per second, as `make bench-stream` measures (JPEG of 512 x 496)."""
FASTEST = 600e12
"""Operations per second of a step that no GPU of today exceeds: 60 % of an H200's 989e12 in bf16."""
ROOM = 1.2
"""The loader should be this many times as fast as the step: images differ, and stores have slow moments."""
FINETUNING, FINETUNING_ON_CPU = 8, 2
"""Most loader processes of a fine-tuning on a GPU; all of them on a CPU, whose steps are slow."""
MOST = 16
"""A process takes 70 MB. With a small model even this many may be too few; data.workers takes any number."""


def needed_processes(model: Model) -> int:
    """Loader processes with which no GPU waits for images."""
    # The backward pass costs twice the forward pass.
    images_per_s = FASTEST / (3 * forward_flops(model))
    return min(MOST, math.ceil(ROOM * images_per_s / IMAGES_PER_S))


def available_processes(cores: float) -> int:
    """Loader processes for which a rank has cores: all but one, and at least one. `cores`: of one rank."""
    return max(1, min(MOST, math.floor(cores) - 1))


def finetuning_workers(cores: float, *, on_gpu: bool) -> int:
    """Loader processes of one fine-tuning. `cores`: that it may use.

    `make bench-augmentation`: one core crops and augments 306 images/s, a third of what it gives to
    pretraining. A ViT-L takes up to 1,600 images/s at `FASTEST`.
    """
    return min(FINETUNING, available_processes(cores)) if on_gpu else FINETUNING_ON_CPU


def choose_workers(model: Model, cores: float, *, on_gpu: bool) -> int:
    """`data.workers` for one rank. `cores`: of one rank."""
    # A step on a CPU takes fewer images than one process gives, and needs the cores itself.
    return min(needed_processes(model), available_processes(cores)) if on_gpu else 1
