"""DeepSpeed, and nothing else here knows of it.

`start` joins the process group, `build` wraps a model, `snapshot` copies the sharded training state, `load`
reads it.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
from collections.abc import Iterable
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import CheckpointError
from retfound_dist.runtime.world import World, launched_by_srun, whole_number
from retfound_dist.stream.batch_plan import BatchLayout
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.single_rank import step_in_place
from retfound_dist.train.ranks.collectives import RankGroup

TAG = "state"
RUN_STATE = "run_state"
"""Where in DeepSpeed's client state stands what the run itself remembers."""
BUCKET = 50_000_000
"""Elements of the gradient sent together. DeepSpeed's own 5e8 holds all of a ViT-L: nothing overlaps."""


def is_alone(train: Train, ranks: int) -> bool:
    """Whether the step is one rank's on a CPU, with nothing to send or to bring in: see `single_rank.py`."""
    return ranks == 1 and train.zero_stage < 3 and not (train.offload_optimizer or torch.cuda.is_available())


def zero_stage(train: Train, ranks: int) -> int:
    """The stage that runs: 0 runs as 1, which computes the same, accumulates in fp32 and can be converted.

    One rank alone on a CPU has nothing to share out, and below 3 runs as 2.
    """
    return 2 if is_alone(train, ranks) else max(1, train.zero_stage)


def ds_config(train: Train, optim: Optim, cut: BatchLayout, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration; its train_batch_size is what it derives: micro x accumulation x world."""
    zero: dict[str, Any] = {
        "stage": zero_stage(train, cut.world),
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET,
        "overlap_comm": torch.cuda.is_available(),
    }
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": cut.micro,
        "gradient_accumulation_steps": cut.accumulation,
        "gradient_clipping": optim.clip_grad,
        "bf16": {
            "enabled": train.precision == "bf16",
            "immediate_grad_update": True,
            "check_grad_overflow": False,  # AdamW itself leaves such a step out: `_judge_on_device`
        },
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device in every pass
        "wall_clock_breakdown": False,
    }


def start(world: World, threads: int) -> RankGroup:
    """Join the other ranks (NCCL on GPUs, gloo on CPUs)."""
    if launched_by_srun(os.environ):
        _set_up_from_slurm(world)
    _set_where_empty("MASTER_ADDR", "127.0.0.1")
    _set_where_empty("MASTER_PORT", "0" if world.size == 1 else "29500")
    _set_where_empty("RANK", str(world.rank))
    _set_where_empty("WORLD_SIZE", str(world.size))
    _set_where_empty("LOCAL_RANK", str(world.local_rank))
    per_node = whole_number(os.environ, "SLURM_NTASKS_PER_NODE", world.size)
    local = max(1, whole_number(os.environ, "LOCAL_WORLD_SIZE", per_node))
    torch.set_num_threads(threads or max(1, (len(os.sched_getaffinity(0)) or 1) // local))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _quiet()
    import deepspeed

    # an operator for inference on CPUs, which DeepSpeed would compile here for half a minute
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with redirect_stdout(StringIO()):
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo")
    hosts = dist.new_group(backend="gloo") if world.size > 1 else None
    return RankGroup(world, device, hosts)


def _leave_muon_uncompiled() -> None:
    """DeepSpeed asks in each step whether the optimizer is Muon, and would import torch's compiler to ask."""
    from deepspeed.runtime import compiler

    compile_, compiler.compile = compiler.compile, lambda: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compile_


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def build(
    model: nn.Module,
    groups: list[dict[str, Any]],
    train: Train,
    optim: Optim,
    cut: BatchLayout,
    universal: bool = False,
) -> Any:
    """A DeepSpeed engine around the model with torch's AdamW; `universal` loads a converted state."""
    import deepspeed

    _leave_muon_uncompiled()
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, eps=optim.eps, fused=True)
    settings = ds_config(train, optim, cut, universal)
    with redirect_stdout(StringIO()):
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    if is_alone(train, cut.world):
        step_in_place(engine.optimizer)
    else:
        _judge_on_device(engine.optimizer, optimizer)
    return engine


def _judge_on_device(sharded: Any, optimizer: torch.optim.Optimizer) -> None:
    """Have AdamW leave a step with a gradient that is not finite out by itself, on the device.

    DeepSpeed would ask the device, and wait, in each step: whether the norm is finite, to mark it where it is
    not, and whether there is need to clip. Fused AdamW takes the verdict as a tensor, as from GradScaler.
    """
    from deepspeed.runtime import bf16_optimizer, utils
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    for module in (bf16_optimizer, stage_1_and_2, stage3):
        module.is_invalid_grad_norm = lambda norm: False
    for module in (utils, stage_1_and_2, stage3):
        module.mask_nan_or_inf_with_val_inplace = lambda norm, **_: None
    bf16_optimizer.clip_tensors_by_global_norm = _clip

    def hand_over(*_: Any) -> None:
        norm = sharded._global_grad_norm
        optimizer.found_inf = None if norm is None else (~_true_norm(norm).isfinite()).float()  # type: ignore[attr-defined]

    optimizer.register_step_pre_hook(hand_over)


def _clip(input_tensors: Iterable[Tensor], max_norm: float, global_norm: Tensor, **_: Any) -> None:
    """Clip gradients in place without asking whether they are too long."""
    factor = (max_norm / (global_norm + 1e-6)).clamp(max=1.0)
    for tensor in input_tensors:
        tensor.detach().mul_(factor)


def _true_norm(norm: Any) -> Tensor:
    """Where AdamW's state is on the host, DeepSpeed writes -1 for a norm that is not finite."""
    norm = torch.as_tensor(norm)
    return torch.where(norm < 0, torch.inf, norm)


def set_lr(engine: Any, lr: float) -> None:
    """The next step's learning rate."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr


def step(engine: Any) -> Tensor | None:
    """End a micro-batch; at the end of a batch the weights move and the gradient's norm is given."""
    boundary = engine.is_gradient_accumulation_boundary()
    engine.step()
    return _true_norm(engine.get_global_grad_norm()) if boundary else None


def snapshot(engine: Any, folder: str, client_state: dict[str, Any]) -> dict[str, Any]:
    """This rank's part of the training state, copied to host memory: by the path it belongs at, in `folder`.

    Every rank must call it; `torch.save` of each value at its path makes what `load` reads.
    """
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    kept: dict[str, Any] = {}

    class Collector(TorchCheckpointEngine):  # type: ignore[misc]
        def save(self, state_dict: Any, path: str) -> None:
            kept[path] = _on_host(state_dict)

    writer, engine.checkpoint_engine = engine.checkpoint_engine, Collector()
    try:
        with redirect_stdout(StringIO()):
            engine.save_checkpoint(folder, tag=TAG, client_state=client_state, save_latest=False)
    finally:
        engine.checkpoint_engine = writer
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return kept


def _to_host(value: Tensor) -> Tensor:
    """A copy in host memory; a GPU's tensor's is page-locked, and whole once the device is waited for."""
    value = value.detach()
    copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
    return copy.copy_(value, non_blocking=True)


def _on_host(value: Any) -> Any:
    """A copy that training does not touch."""
    if isinstance(value, Tensor):
        return _to_host(value)
    if isinstance(value, dict):
        return type(value)((key, _on_host(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_on_host(item) for item in value)
    return deepcopy(value)


def load(engine: Any, folder: str, tag: str) -> dict[str, Any]:
    """Read this rank's part of the training state below `folder/tag`; gives its client state.

    CheckpointError, and nothing is run, where a file holds more than DeepSpeed writes (`state_files`).
    """
    settings = [{k: v for k, v in g.items() if k != "params"} for g in engine.optimizer.param_groups]
    clip = engine.optimizer.clip_grad
    state_files.check_folder(os.path.join(folder, tag), tag)
    try:
        with redirect_stdout(StringIO()), state_files.restricted_unpickling():
            path, client_state = engine.load_checkpoint(folder, tag=tag)
    except (pickle.UnpicklingError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"DeepSpeed cannot load the training state ({type(error).__name__}: {_first_line(error)}): "
            "use another checkpoint"
        ) from error
    engine.optimizer.clip_grad = clip  # a state that stage 3 wrote holds none, and would end the clipping
    for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(own)  # stage 3 gives every group the first one's weight decay
    for state in engine.optimizer.optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()  # one tensor for all in stage 3: each counts it up
    if path is None:
        raise CheckpointError(f"DeepSpeed finds no training state in {folder}/{tag}")
    return dict(client_state)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _set_where_empty(name: str, value: str) -> None:
    """A variable that torch.distributed reads; `RANK=` counts as not set, as in `world`."""
    if not os.environ.get(name, "").strip():
        os.environ[name] = value


def _quiet() -> None:
    """DeepSpeed reports every detail at INFO; keep its warnings."""
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _set_up_from_slurm(world: World) -> None:
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", ""))
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    _set_where_empty("MASTER_ADDR", hosts.stdout.split()[0])
    _set_where_empty("MASTER_PORT", str(20000 + whole_number(os.environ, "SLURM_JOB_ID", 0) % 20000))
