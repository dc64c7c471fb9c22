"""DeepSpeed's configuration, and what its import reads from the environment."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from retfound_dist.config.schema import Optim, Train
from retfound_dist.stream.batch_plan import BatchLayout

TESTED_DEEPSPEED = "0.19.8"
"""The version that `deepspeed_patches.py`, `state_layout.py` and `checkpoint/universal.py` were written for.
`pyproject.toml` pins it."""
BUCKET = 50_000_000
"""Elements of the gradient sent together. DeepSpeed's own 5e8 holds all of a ViT-L: nothing overlaps."""


def deepspeed_config(
    train: Train, optim: Optim, layout: BatchLayout, stage: int, universal: bool = False
) -> dict[str, Any]:
    """DeepSpeed's configuration at a ZeRO stage; `universal`: for loading a converted state."""
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET,
        "overlap_comm": torch.cuda.is_available(),
    }
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    # `train_batch_size` is left out: given too, it would have to equal the product of the other two and the
    # ranks.
    return {
        "train_micro_batch_size_per_gpu": layout.micro,
        "gradient_accumulation_steps": layout.accumulation,
        "gradient_clipping": optim.clip_grad,
        "bf16": {
            "enabled": train.precision == "bf16",
            "immediate_grad_update": True,
            # AdamW itself skips such a step: `deepspeed_patches.checks_on_device`
            "check_grad_overflow": False,
        },
        # Otherwise gradients of bf16 weights are added up in bf16, and small ones are lost.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        # DeepSpeed refuses torch's own AdamW, and for an offloaded state requires its CPU Adam, which it
        # would have to compile.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
        # DeepSpeed's throughput timer, on by default, synchronizes the device in every pass.
        "timers": {"throughput": {"enabled": False}},
        "wall_clock_breakdown": False,
    }


def prepare_import() -> None:
    """Set what the import of DeepSpeed reads; otherwise it warns of a missing GPU and reports all details."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
