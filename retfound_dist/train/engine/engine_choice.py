"""Chooses the engine of a run, and checks the installed version of DeepSpeed.

One rank has nothing to shard or to send, so it needs no DeepSpeed: DeepSpeed would copy each gradient
twice, and keep a second set of weights in fp32.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import TrainingError
from retfound_dist.stream.batch_plan import BatchLayout
from retfound_dist.train.engine import single_rank_engine
from retfound_dist.train.engine.deepspeed_config import TESTED_DEEPSPEED
from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.single_rank_engine import SingleRankEngine
from retfound_dist.train.engine.training_engine import TrainingEngine


def is_single_rank(train: Train, ranks: int) -> bool:
    """Whether one rank takes the step, with nothing to send or to gather."""
    return ranks == 1 and train.zero_stage < 3 and not train.offload_optimizer


def choose_zero_stage(train: Train, ranks: int) -> int:
    """The ZeRO stage that runs: 0 runs as 1, which computes the same; a single rank below 3 runs as 2."""
    # DeepSpeed 0.19.8 refuses stage 0 with bf16 weights and fp32 accumulation (NotImplementedError:
    # unsupported mix), and a state of stage 0 cannot be converted to another number of ranks.
    return single_rank_engine.ZERO_STAGE if is_single_rank(train, ranks) else max(1, train.zero_stage)


def make_engine(
    model: nn.Module,
    groups: list[dict[str, Any]],
    train: Train,
    optim: Optim,
    layout: BatchLayout,
    universal: bool = False,
) -> TrainingEngine:
    """An engine around the model, with AdamW; `universal`: it is going to load a converted state."""
    # DeepSpeed itself would convert the model. The engine of one rank takes it as it is.
    model.to(torch.bfloat16 if train.precision == "bf16" else torch.float32)
    if is_single_rank(train, layout.world):
        return SingleRankEngine(model, groups, train, optim, layout, universal)
    return DeepSpeedEngine(
        model, groups, train, optim, layout, choose_zero_stage(train, layout.world), universal
    )


def check_deepspeed_version() -> None:
    """TrainingError unless the installed DeepSpeed is the one that this package was tested with."""
    if (installed := version("deepspeed")) != TESTED_DEEPSPEED:
        raise TrainingError(
            f"DeepSpeed {installed} is installed, but training was tested with {TESTED_DEEPSPEED} only and "
            f"changes internal parts of it: run pip install 'deepspeed=={TESTED_DEEPSPEED}'"
        )
