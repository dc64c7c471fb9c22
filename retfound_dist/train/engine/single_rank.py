"""One rank on a CPU: gradients are not copied to be sent, because there is no other rank.

Patch of DeepSpeed 0.19.8 at ZeRO 2. It copies each gradient into a bucket, from there into a flat fp32
vector, and keeps a second set of weights where the working precision is fp32 already. Here AdamW takes each
tensor's gradient where the backward pass left it, and lets go of it. The state that a checkpoint holds stays
DeepSpeed's. Without the patch the numbers agree to rounding, but a step is slower and takes more memory than
`estimate/gpu_memory.py` predicts.
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
    # fp32 alone: in bf16 the optimizer's fp32 weights are a second set by purpose.
    if sharded.dtype == torch.float32:
        for flat, master in zip(
            sharded.bit16_groups_flat, sharded.single_partition_of_fp32_groups, strict=True
        ):
            master.data = flat.data
        # Each parameter holds a view of its part of the optimizer's weights. Without this it would still be a
        # view of the second set, which nothing updates any more.
        sharded._link_all_hp_params()
    # The three places where DeepSpeed 0.19.8 copies: after each gradient, after the last pass, in the step.
    sharded.process_gradients = lambda parameter, group: _accumulate(sharded, parameter)
    sharded.overlapping_partition_gradients_reduce_epilogue = lambda: _collect_gradients(sharded)
    sharded.step = lambda: _step(sharded)


def _accumulate(sharded: Any, parameter: Tensor) -> None:
    """Add up a step's passes in fp32; the gradient of a single pass stays as it is."""
    # Not in fp32: there the backward pass itself adds to `.grad`.
    if sharded.dtype != torch.float32 and sharded.gradient_accumulation_steps > 1:
        sharded._fill_param_grad_accum_attribute(parameter)


def _collect_gradients(sharded: Any) -> None:
    """After a step's last pass: put the gradients, one by one, where DeepSpeed keeps those to be applied."""
    if not sharded.is_gradient_accumulation_boundary():
        return
    for number, group in enumerate(sharded.bit16_groups):
        gradients = []
        for parameter in group:
            gradient = parameter.grad if parameter.grad_accum is None else parameter.grad_accum
            # Zeros where the batch did not reach a parameter: AdamW decays it and counts the step all the
            # same.
            gradients.append(torch.zeros_like(parameter) if gradient is None else gradient)
            parameter.grad = parameter.grad_accum = None
        sharded.averaged_gradients[number] = gradients


@torch.no_grad()
def _step(sharded: Any) -> None:
    """Move the weights; nothing moves where the gradient's norm is not finite."""
    gradients = sharded.averaged_gradients
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.float32)
        for group in gradients.values()
        for gradient in group
    ]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    sharded.overflow, sharded._global_grad_norm = False, norm
    # AdamW divides by it as it reads a gradient, so clipping takes no pass of its own over them.
    excess = ((norm + CLIP_EPS) / sharded.clip_grad).clamp(min=1) if sharded.clip_grad else None
    for number, (parameters, settings) in enumerate(
        zip(sharded.bit16_groups, sharded.optimizer.param_groups, strict=True)
    ):
        flat = settings["params"][0]
        _update(parameters, gradients[number], flat, _state(sharded.optimizer, flat), settings, norm, excess)
        gradients[number] = None
    # As DeepSpeed's own step: links the moments, which did not exist before it, to the parameters.
    sharded._lazy_init_hp_params_optimizer_state()


def _state(optimizer: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    """AdamW's state of a group's flat weights, created in the first step."""
    state: dict[str, Tensor] = optimizer.state[flat]
    if not state:
        state["step"] = torch.zeros(())
        state.update({name: torch.zeros_like(flat) for name in MOMENTS})
    return state


def _update(
    parameters: list[Tensor],
    gradients: list[Tensor | None],
    flat: Tensor,
    state: dict[str, Tensor],
    settings: dict[str, Any],
    norm: Tensor,
    excess: Tensor | None,
) -> None:
    """Apply torch's fused AdamW to a group, tensor by tensor: each gradient goes as soon as it is applied."""
    not_finite = (~norm.isfinite()).float()
    # The function below reads the step and does not count it up; a skipped step is none.
    state["step"] += 1 - not_finite
    start = 0
    for number, parameter in enumerate(parameters):
        gradient, gradients[number] = gradients[number], None
        end = start + parameter.numel()
        weight, first, second = (
            vector[start:end].view_as(parameter) for vector in (flat, *(state[name] for name in MOMENTS))
        )
        # The function under torch.optim.AdamW(fused=True): the class would want one gradient as long as
        # `flat`.
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
            found_inf=not_finite,
        )
        if weight.dtype != parameter.dtype:
            parameter.data.copy_(weight)
        start = end
