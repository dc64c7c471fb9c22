"""DeepSpeed's engine: several ranks, ZeRO 3, or AdamW's state on the host.

Only this module and `deepspeed_patches.py` import DeepSpeed.
"""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import CheckpointError
from retfound_dist.stream.batch_plan import BatchLayout
from retfound_dist.train.engine import deepspeed_patches, state_files
from retfound_dist.train.engine.deepspeed_config import deepspeed_config, prepare_import
from retfound_dist.train.engine.host_copies import copy_to_host, wait_for_copies
from retfound_dist.train.engine.training_engine import RUN_STATE, STATE_FOLDER


class DeepSpeedEngine:
    """A `TrainingEngine` by DeepSpeed, with torch's AdamW; `universal`: it loads a converted state."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        train: Train,
        optim: Optim,
        layout: BatchLayout,
        stage: int,
        universal: bool = False,
    ) -> None:
        prepare_import()
        import deepspeed  # not at the top: it takes seconds

        deepspeed_patches.import_muon_uncompiled()
        self.zero_stage = stage
        # lr 0: `set_lr` sets the rate of every step. Fused, for only that AdamW takes `found_inf`.
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, eps=optim.eps, fused=True)
        config = deepspeed_config(train, optim, layout, stage, universal)
        with redirect_stdout(StringIO()), deepspeed_patches.no_shared_memory_operator():
            self.deepspeed, *_ = deepspeed.initialize(model=model, optimizer=self.adamw, config=config)
        self.module: nn.Module = self.deepspeed.module
        self.sharded: Any = self.deepspeed.optimizer
        """DeepSpeed's optimizer, which holds this rank's part of the state."""
        deepspeed_patches.skip_bad_steps(self.sharded, self.adamw)

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        """The model's forward pass."""
        losses: Tensor = self.deepspeed(images, noise)
        return losses

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.sharded.param_groups:
            group["lr"] = lr

    def backward(self, loss: Tensor) -> None:
        """Add a pass's gradient, divided by the number of passes and ranks."""
        self.deepspeed.backward(loss)

    def end_pass(self) -> Tensor | None:
        """Update the weights after the last pass of a step, and return the gradient's norm; else None."""
        # Asked before the step, which counts the passes.
        is_last = self.deepspeed.is_gradient_accumulation_boundary()
        with deepspeed_patches.checks_on_device():
            self.deepspeed.step()
        return deepspeed_patches.true_norm(self.deepspeed.get_global_grad_norm()) if is_last else None

    def snapshot(self, folder: str, client_state: dict[str, Any]) -> dict[str, Any]:
        """Copy this rank's part of the training state to host memory, by path of the file in `folder`."""
        from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

        state: dict[str, Any] = {}

        # DeepSpeed's save writes the files itself, and training would stand still for as long. Its checkpoint
        # engine is the one place where it hands over what belongs in each file.
        class Collector(TorchCheckpointEngine):  # type: ignore[misc]
            def save(self, state_dict: Any, path: str) -> None:
                state[path] = copy_to_host(state_dict)

        writer, self.deepspeed.checkpoint_engine = self.deepspeed.checkpoint_engine, Collector()
        try:
            with redirect_stdout(StringIO()):
                # No `latest` file: DeepSpeed writes it in place, and COMMIT.json says which one counts.
                self.deepspeed.save_checkpoint(
                    folder, tag=STATE_FOLDER, client_state=client_state, save_latest=False
                )
        finally:
            self.deepspeed.checkpoint_engine = writer
        wait_for_copies()
        return state

    def load(self, folder: str, name: str) -> dict[str, Any]:
        """Read this rank's part of the training state below `folder/name`; returns its `RUN_STATE`."""
        # Four repairs after a load, for DeepSpeed 0.19.8. Without the first nothing is clipped after a state
        # that stage 3 wrote, which holds no `clip_grad`. Without the second biases and norms decay, for stage
        # 3 gives every group the settings of the first. Without the third AdamW's bias correction is wrong:
        # stage 3 gives all parameters one tensor for the step, and each of them counts it up. Without the
        # fourth fused AdamW refuses a converted state on a GPU: its steps are on the CPU.
        groups = self.sharded.param_groups
        settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        clip = self.sharded.clip_grad
        client_state = self.load_unrepaired(folder, name)
        self.sharded.clip_grad = clip
        for group, group_settings in zip(self.sharded.param_groups, settings, strict=True):
            group.update(group_settings)
        give_each_parameter_its_step(self.adamw)
        return dict(client_state.get(RUN_STATE, {}))

    def load_unrepaired(self, folder: str, name: str) -> dict[str, Any]:
        """DeepSpeed's own load, of checked files; returns its client state."""
        with (
            state_files.unreadable_state(os.path.join(folder, name), name),
            state_files.restricted_unpickling(),
            redirect_stdout(StringIO()),
        ):
            path, client_state = self.deepspeed.load_checkpoint(folder, tag=name)
        if path is None:
            raise CheckpointError(f"DeepSpeed finds no training state in {folder}/{name}")
        return dict(client_state)


def give_each_parameter_its_step(optimizer: torch.optim.Optimizer) -> None:
    """Replace AdamW's count of steps by a copy for each parameter, on the parameter's device."""
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, copy=True)
