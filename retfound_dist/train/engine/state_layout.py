"""The files of one rank's training state in DeepSpeed's layout, written and read without its engine.

The layout is that of DeepSpeed 0.19.8 at ZeRO 2 (`DeepSpeedEngine._save_checkpoint`, `_save_zero_checkpoint`
and `DeepSpeedZeroOptimizer.state_dict`). One rank writes two files:

    mp_rank_00_model_states.pt
        module                          all weights and buffers, in the working precision
        param_shapes                    of each parameter group: shape by name
        frozen_param_shapes, _fragments shape and values of what is not trained
        global_steps, global_samples    how far the run is
        run_state, ...                  what the caller adds
    zero_pp_rank_0_mp_rank_00_optim_states.pt, in bf16 with `bf16_` before it
        optimizer_state_dict
            single_partition_of_fp32_groups of each group: its fp32 weights, end to end
            base_optimizer_state            AdamW's state_dict: of each group step, exp_avg, exp_avg_sq
            param_slice_mappings            of each group: start and length of each tensor by name

A converted ("universal") state has a folder `zero/NAME` for each parameter, with `fp32.pt`, `exp_avg.pt`,
`exp_avg_sq.pt` and `step.pt`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retfound_dist.config.schema import Optim
from retfound_dist.formats.checkpoint_folder import UNIVERSAL
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.adamw_group import AdamWGroup
from retfound_dist.train.engine.deepspeed_config import TESTED_DEEPSPEED
from retfound_dist.train.engine.host_copies import copy_to_host, flatten_to_host, wait_for_copies
from retfound_dist.train.engine.training_engine import RUN_STATE, STATE_FOLDER

MODEL_FILE = "mp_rank_00_model_states.pt"
OPTIMIZER_FILE = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
BF16_OPTIMIZER_FILE = f"bf16_{OPTIMIZER_FILE}"


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    steps: int = 0
    samples: int = 0


@dataclass(frozen=True)
class ParameterState:
    """What AdamW keeps of one parameter; of any shape with as many elements."""

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor


@dataclass(frozen=True)
class TrainingState:
    """A state that was read."""

    parameters: dict[str, ParameterState]
    progress: Progress
    run_state: dict[str, Any]


def make_state(
    folder: str,
    model: nn.Module,
    groups: Sequence[AdamWGroup],
    optim: Optim,
    config: dict[str, Any],
    progress: Progress,
    client_state: dict[str, Any],
) -> dict[str, Any]:
    """Copy a training state to host memory; returns the content of each file by its path."""
    files = {
        MODEL_FILE: _model_state(model, groups, config, progress) | copy_to_host(client_state),
        BF16_OPTIMIZER_FILE if config["bf16"]["enabled"] else OPTIMIZER_FILE: {
            "optimizer_state_dict": _optimizer_state(groups, optim),
            "ds_config": config,
            "ds_version": TESTED_DEEPSPEED,
        },
    }
    wait_for_copies()
    return {os.path.join(folder, STATE_FOLDER, name): content for name, content in files.items()}


def _model_state(
    model: nn.Module, groups: Iterable[AdamWGroup], config: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """The file of the model. What this trainer never uses is None or empty, as DeepSpeed writes it."""
    frozen = [(name, p) for name, p in model.named_parameters() if not p.requires_grad]
    weights = copy_to_host(model.state_dict())
    parameter_names = {name for name, _ in model.named_parameters()}
    return {
        "module": weights,
        "buffer_names": [name for name in weights if name not in parameter_names],
        "optimizer": None,
        "param_shapes": [
            OrderedDict((name, p.shape) for name, p in zip(group.names, group.parameters, strict=True))
            for group in groups
        ],
        "frozen_param_shapes": OrderedDict((name, p.shape) for name, p in frozen),
        "shared_params": {},
        "frozen_param_fragments": OrderedDict((name, copy_to_host(p)) for name, p in frozen),
        "lr_scheduler": None,
        "data_sampler": None,
        "random_ltd": None,
        "skipped_steps": 0,
        "global_steps": progress.steps,
        "global_samples": progress.samples,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "checkpoint_parallel_dimensions": {"pp_degree": 1, "tp_degree": 1},
        "ds_config": config,
        "ds_version": TESTED_DEEPSPEED,
    }


def _optimizer_state(groups: Sequence[AdamWGroup], optim: Optim) -> dict[str, Any]:
    """What DeepSpeed's optimizer of ZeRO 2 saves on one rank."""
    loss_scaler, stage, address = state_files.deepspeed_classes()
    flat_weights = [flatten_to_host(group.weights) for group in groups]
    addresses = []
    for group in groups:
        start, of_group = 0, OrderedDict()
        for name, weight in zip(group.names, group.weights, strict=True):
            of_group[name] = address(numel=weight.numel(), start=start)
            start += weight.numel()
        addresses.append(of_group)
    return {
        "loss_scaler": loss_scaler(scale=1.0),
        "dynamic_loss_scale": False,
        "overflow": False,
        "clip_grad": optim.clip_grad,
        "base_optimizer_state": _adamw_state(groups, flat_weights, optim),
        "single_partition_of_fp32_groups": flat_weights,
        "zero_stage": stage.gradients,
        "group_paddings": [0 for _ in groups],
        "param_alignment_paddings": [[0] * len(group.names) for group in groups],
        "partition_count": [1 for _ in groups],
        "ds_version": TESTED_DEEPSPEED,
        "param_slice_mappings": addresses,
    }


def _adamw_state(
    groups: Sequence[AdamWGroup], flat_weights: Sequence[Tensor], optim: Optim
) -> dict[str, Any]:
    """The state_dict of torch's AdamW over the groups' flat weights, which DeepSpeed uses."""
    # By AdamW itself, so that it has every setting that this version of torch knows.
    settings = [
        {"params": [flat], "weight_decay": group.weight_decay, "lr": group.lr}
        for group, flat in zip(groups, flat_weights, strict=True)
    ]
    optimizer = torch.optim.AdamW(settings, lr=0.0, betas=optim.betas, eps=optim.eps, fused=True)
    for group, flat in zip(groups, flat_weights, strict=True):
        optimizer.state[flat] = {
            "step": copy_to_host(group.steps[0]),
            "exp_avg": flatten_to_host(group.exp_avgs),
            "exp_avg_sq": flatten_to_host(group.exp_avg_sqs),
        }
    return optimizer.state_dict()


def read_state(folder: str, name: str, parameter_names: Iterable[str]) -> TrainingState:
    """Read the training state in `folder/name`; KeyError where it lacks one of the parameters."""
    where = os.path.join(folder, name)
    model_state = _read(where, MODEL_FILE)
    read = _read_converted if name == UNIVERSAL else _read_own
    return TrainingState(
        read(where, list(parameter_names)),
        Progress(model_state["global_steps"], model_state["global_samples"]),
        dict(model_state.get(RUN_STATE, {})),
    )


def _read_own(where: str, names: Sequence[str]) -> dict[str, ParameterState]:
    """The parameters of a state that one rank wrote at ZeRO 2."""
    is_bf16 = os.path.exists(os.path.join(where, BF16_OPTIMIZER_FILE))
    optimizer = _read(where, BF16_OPTIMIZER_FILE if is_bf16 else OPTIMIZER_FILE)["optimizer_state_dict"]
    states: dict[str, ParameterState] = {}
    for number, addresses in enumerate(optimizer["param_slice_mappings"]):
        weights = optimizer["single_partition_of_fp32_groups"][number]
        adamw = optimizer["base_optimizer_state"]["state"][number]
        for name, address in addresses.items():
            part = slice(address.start, address.start + address.numel)
            states[name] = ParameterState(
                weights[part], adamw["exp_avg"][part], adamw["exp_avg_sq"][part], adamw["step"]
            )
    return {name: states[name] for name in names}


def _read_converted(where: str, names: Sequence[str]) -> dict[str, ParameterState]:
    """The parameters of a state that `checkpoint/universal.py` has converted."""

    def read_parameter(name: str) -> ParameterState:
        weight, exp_avg, exp_avg_sq = (
            _read(where, f"zero/{name}/{kind}.pt")["param"] for kind in ("fp32", "exp_avg", "exp_avg_sq")
        )
        return ParameterState(weight, exp_avg, exp_avg_sq, _read(where, f"zero/{name}/step.pt"))

    return {name: read_parameter(name) for name in names}


def _read(where: str, name: str) -> Any:
    # Mapped, for the weights in the file of the model are not read: they are in the optimizer's file too.
    return state_files.read(os.path.join(where, name), name, mmap=True)
