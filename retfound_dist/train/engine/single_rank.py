"""One rank on a CPU: nothing is sent to other ranks, so nothing is laid out to be sent.

DeepSpeed (0.19.8, ZeRO 2) copies each gradient into a bucket, from there into a flat fp32 vector, and keeps
a second set of weights where the working precision is fp32 already. Here AdamW takes each tensor's gradient
where the backward pass left it, and lets go of it. The state that a checkpoint holds stays DeepSpeed's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
CLIP_EPS = 1e-6
"""Added to the norm before it is clipped, as DeepSpeed does."""


def step_in_place(sharded: Any) -> None:
    """Have DeepSpeed's optimizer of a single rank leave gradients where they are, and step from there."""
    if sharded.dtype == torch.float32:
        for flat, master in zip(
            sharded.bit16_groups_flat, sharded.single_partition_of_fp32_groups, strict=True
        ):
            master.data = flat.data
        sharded._link_all_hp_params()
    sharded.process_gradients = lambda parameter, group: _accumulate(sharded, parameter)
    sharded.overlapping_partition_gradients_reduce_epilogue = lambda: _hand_over(sharded)
    sharded.step = lambda: _step(sharded)


def _accumulate(sharded: Any, parameter: Tensor) -> None:
    """Add up a step's passes in fp32; the gradient of a single pass stays as it is."""
    if sharded.dtype != torch.float32 and sharded.gradient_accumulation_steps > 1:
        sharded._fill_param_grad_accum_attribute(parameter)


def _hand_over(sharded: Any) -> None:
    """After a step's last pass: the gradients, each by itself, where DeepSpeed keeps those to be applied."""
    if not sharded.is_gradient_accumulation_boundary():
        return
    for number, group in enumerate(sharded.bit16_groups):
        kept = []
        for parameter in group:
            found = parameter.grad if parameter.grad_accum is None else parameter.grad_accum
            kept.append(torch.zeros_like(parameter) if found is None else found)
            parameter.grad = parameter.grad_accum = None
        sharded.averaged_gradients[number] = kept


@torch.no_grad()
def _step(sharded: Any) -> None:
    """Move the weights; nothing moves where the gradient's norm is not finite."""
    held = sharded.averaged_gradients
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.float32) for kept in held.values() for gradient in kept
    ]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    sharded.overflow, sharded._global_grad_norm = False, norm
    excess = ((norm + CLIP_EPS) / sharded.clip_grad).clamp(min=1) if sharded.clip_grad else None
    for number, (parameters, settings) in enumerate(
        zip(sharded.bit16_groups, sharded.optimizer.param_groups, strict=True)
    ):
        flat = settings["params"][0]
        _move(parameters, held[number], flat, _state(sharded.optimizer, flat), settings, norm, excess)
        held[number] = None
    sharded._lazy_init_hp_params_optimizer_state()


def _state(optimizer: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    """AdamW's state of a group's flat weights, begun where there is none."""
    state: dict[str, Tensor] = optimizer.state[flat]
    if not state:
        state["step"] = torch.zeros(())
        state.update({name: torch.zeros_like(flat) for name in MOMENTS})
    return state


def _move(
    parameters: list[Tensor],
    gradients: list[Tensor | None],
    flat: Tensor,
    state: dict[str, Tensor],
    settings: dict[str, Any],
    norm: Tensor,
    excess: Tensor | None,
) -> None:
    """torch's fused AdamW on a group, tensor by tensor: each gradient goes as soon as it is applied."""
    unfit = (~norm.isfinite()).float()
    state["step"] += 1 - unfit
    start = 0
    for number, parameter in enumerate(parameters):
        gradient, gradients[number] = gradients[number], None
        end = start + parameter.numel()
        weight, first, second = (
            each[start:end].view_as(parameter) for each in (flat, *(state[name] for name in MOMENTS))
        )
        torch._fused_adamw_(
            [weight],
            [gradient.float()],  # type: ignore[union-attr]
            [first],
            [second],
            [],
            [state["step"]],
            lr=settings["lr"],
            beta1=settings["betas"][0],
            beta2=settings["betas"][1],
            weight_decay=settings["weight_decay"],
            eps=settings["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=excess,
            found_inf=unfit,
        )
        if weight.dtype != parameter.dtype:
            parameter.data.copy_(weight)
        start = end
