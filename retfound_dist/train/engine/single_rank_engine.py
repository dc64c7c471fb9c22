"""The engine of one rank: torch's fused AdamW on fp32 weights, with no copy of a gradient.

In fp32 the optimizer's weights are the model's. In bf16 they are a second set, in fp32: a step is often less
than bf16 can add to a weight. Gradients of several passes are summed in fp32.

Its training state is DeepSpeed's (`state_layout.py`), so a run can go on with another number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from retfound_dist.config.schema import Optim, Train
from retfound_dist.stream.batch_plan import BatchLayout
from retfound_dist.train.engine import state_files, state_layout
from retfound_dist.train.engine.adamw_group import AdamWGroup, make_adamw_group
from retfound_dist.train.engine.deepspeed_config import deepspeed_config
from retfound_dist.train.engine.state_layout import ParameterState, Progress

ZERO_STAGE = 2
"""The stage whose files are written. Nothing is sharded on one rank, so stages 0 to 2 are the same here."""
CLIP_EPS = 1e-6
"""Added to the norm before it is clipped, as DeepSpeed does."""
BLOCK = 1 << 24
"""Elements that AdamW updates in one call. More would be more fp32 copies of bf16 gradients at a time; fewer
would be more launches on a GPU."""


class SingleRankEngine:
    """A `TrainingEngine` for one rank on any device, below ZeRO 3 and without an offloaded state."""

    zero_stage = ZERO_STAGE

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        train: Train,
        optim: Optim,
        layout: BatchLayout,
        universal: bool = False,
    ) -> None:
        self.module = model
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.groups = [make_adamw_group(names, group) for group in groups]
        self.progress = Progress()
        """Steps and images so far."""
        self.clip_grad = optim.clip_grad
        self._optim, self._layout = optim, layout
        self._config = deepspeed_config(train, optim, layout, ZERO_STAGE, universal)
        self._passes = 0
        if layout.accumulation > 1:
            self._accumulate_in_fp32()
        # Now, for the first snapshot must not wait for the import of DeepSpeed.
        state_files.deepspeed_classes()

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        """The model's forward pass."""
        losses: Tensor = self.module(images, noise)
        return losses

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.groups:
            group.lr = lr

    def backward(self, loss: Tensor) -> None:
        """Add a pass's gradient, divided by the number of passes."""
        (loss / self._layout.accumulation).backward()  # type: ignore[no-untyped-call]

    def end_pass(self) -> Tensor | None:
        """Update the weights after the last pass of a step, and return the gradient's norm; else None."""
        self._passes += 1
        if self._passes < self._layout.accumulation:
            return None
        self._passes = 0
        self.progress = Progress(
            self.progress.steps + 1, self.progress.samples + self._layout.micro * self._layout.accumulation
        )
        return self.update_weights()

    def _accumulate_in_fp32(self) -> None:
        """Sum the passes of bf16 parameters in fp32; in fp32 the backward pass itself does so.

        A bf16 parameter has an fp32 copy, its `weight`. After each pass a hook adds the gradient to that of
        the copy.
        """
        for group in self.groups:
            for parameter, weight in zip(group.parameters, group.weights, strict=True):
                if weight is not parameter:
                    parameter.register_post_accumulate_grad_hook(partial(_add_gradient, weight))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update_weights(self) -> Tensor:
        """Update the weights; returns the gradient's norm. Where that is not finite, nothing is updated."""
        gradients = [
            [_take_gradient(*pair) for pair in zip(group.parameters, group.weights, strict=True)]
            for group in self.groups
        ]
        norms = [
            torch.linalg.vector_norm(gradient, dtype=torch.float32)
            for group_gradients in gradients
            for gradient in group_gradients
        ]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        # AdamW divides by it as it reads a gradient, so clipping takes no pass of its own over them.
        excess = ((norm + CLIP_EPS) / self.clip_grad).clamp(min=1) if self.clip_grad else None
        not_finite = (~norm.isfinite()).float()
        for group, group_gradients in zip(self.groups, gradients, strict=True):
            self._update(group, group_gradients, excess, not_finite)
        return norm

    def _update(
        self, group: AdamWGroup, gradients: list[Tensor], excess: Tensor | None, not_finite: Tensor
    ) -> None:
        """Apply AdamW to a group, block by block; empties `gradients`."""
        start = 0
        while gradients:
            count = _block_length(gradients)
            block = slice(start, start + count)
            fp32_gradients = [gradient.float() for gradient in gradients[:count]]
            # Freed here: all fp32 copies of bf16 gradients at once would be as large as the weights.
            del gradients[:count]
            adamw(
                list(group.weights[block]),
                fp32_gradients,
                group.exp_avgs[block],
                group.exp_avg_sqs[block],
                [],
                group.steps[block],
                fused=True,
                grad_scale=excess,
                found_inf=not_finite,
                amsgrad=False,
                beta1=self._optim.betas[0],
                beta2=self._optim.betas[1],
                lr=group.lr,
                weight_decay=group.weight_decay,
                eps=self._optim.eps,
                maximize=False,
            )
            for parameter, weight in zip(group.parameters[block], group.weights[block], strict=True):
                if weight is not parameter:
                    parameter.copy_(weight)
            start += count

    def snapshot(self, folder: str, client_state: dict[str, Any]) -> dict[str, Any]:
        """Copy the training state to host memory, by path of the file in `folder`."""
        return state_layout.make_state(
            folder, self.module, self.groups, self._optim, self._config, self.progress, client_state
        )

    @torch.no_grad()
    def load(self, folder: str, name: str) -> dict[str, Any]:
        """Read the training state below `folder/name`; returns its `RUN_STATE`."""
        with state_files.unreadable_state(os.path.join(folder, name), name):
            parameter_names = [each for group in self.groups for each in group.names]
            saved = state_layout.read_state(folder, name, parameter_names)
            for group in self.groups:
                for number, parameter_name in enumerate(group.names):
                    _copy_state(group, number, saved.parameters[parameter_name])
        self.progress = saved.progress
        return saved.run_state


def _add_gradient(weight: Tensor, parameter: Tensor) -> None:
    """Move a pass's gradient from a bf16 parameter to its fp32 weight."""
    assert parameter.grad is not None
    if weight.grad is None:
        weight.grad = parameter.grad.float()
    else:
        weight.grad.add_(parameter.grad)
    parameter.grad = None


def _take_gradient(parameter: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a step, which stays nowhere else."""
    gradient = parameter.grad if weight.grad is None else weight.grad
    parameter.grad = weight.grad = None
    # Zeros where the batch did not reach a parameter: AdamW decays it and counts the step all the same.
    return torch.zeros_like(weight, requires_grad=False) if gradient is None else gradient


def _block_length(gradients: Sequence[Tensor]) -> int:
    """How many gradients, from the first one on, have at most `BLOCK` elements together; at least 1."""
    total = 0
    for count, gradient in enumerate(gradients):
        total += gradient.numel()
        if count and total > BLOCK:
            return count
    return len(gradients)


def _copy_state(group: AdamWGroup, number: int, saved: ParameterState) -> None:
    """Copy what was saved of a parameter into its group."""
    parameter, weight = group.parameters[number], group.weights[number]
    weight.copy_(saved.weight.view_as(weight))
    if weight is not parameter:
        parameter.copy_(weight)
    group.exp_avgs[number].copy_(saved.exp_avg.view_as(weight))
    group.exp_avg_sqs[number].copy_(saved.exp_avg_sq.view_as(weight))
    group.steps[number].copy_(saved.step)
