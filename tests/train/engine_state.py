"""What an engine of either kind holds at a moment: gradients before they are applied, fp32 weights, clipping."""

from __future__ import annotations

import torch

from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.single_rank_engine import SingleRankEngine
from retfound_dist.train.engine.training_engine import TrainingEngine


def gradients_of(engine: TrainingEngine) -> dict[str, torch.Tensor]:
    """The gradients of a step so far, in fp32."""
    from deepspeed.utils import safe_get_full_grad

    if isinstance(engine, SingleRankEngine):
        pairs = [
            (name, parameter.grad if weight.grad is None else weight.grad)
            for group in engine.groups
            for name, parameter, weight in zip(group.names, group.parameters, group.weights, strict=True)
        ]
    else:
        pairs = [(n, safe_get_full_grad(p)) for n, p in engine.module.named_parameters() if p.requires_grad]
    return {name: gradient.detach().float().clone() for name, gradient in pairs if gradient is not None}


def fp32_weights_of(engine: TrainingEngine) -> dict[str, torch.Tensor]:
    """The trained weights."""
    from deepspeed.utils import safe_get_full_fp32_param

    if isinstance(engine, SingleRankEngine):
        pairs = [pair for group in engine.groups for pair in zip(group.names, group.weights, strict=True)]
    else:
        pairs = [
            (n, safe_get_full_fp32_param(p)) for n, p in engine.module.named_parameters() if p.requires_grad
        ]
    return {name: weight.detach().clone() for name, weight in pairs}


def clipping_of(engine: TrainingEngine) -> float:
    """The norm that gradients are clipped to; 0: none."""
    if isinstance(engine, DeepSpeedEngine):
        return float(engine.sharded.clip_grad)
    assert isinstance(engine, SingleRankEngine)
    return engine.clip_grad


def learning_rates_of(engine: TrainingEngine) -> list[float]:
    """Of each parameter group."""
    if isinstance(engine, DeepSpeedEngine):
        return [group["lr"] for group in engine.sharded.param_groups]
    assert isinstance(engine, SingleRankEngine)
    return [group.lr for group in engine.groups]
