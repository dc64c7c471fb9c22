"""The only module that imports DeepSpeed.

`start` joins the process group, `build` wraps a model, `snapshot` copies the sharded training state, `load`
reads it.

Patches of DeepSpeed, all made and checked for 0.19.8. A comment at each says why and what fails without it:

- `_skip_shm_operator`: no compiler is needed to join ranks on CPUs.
- `_import_muon_uncompiled`: the first step imports no compiler.
- `_skip_bad_steps_on_device`: a step does not wait for the device.
- `load`: clipping, weight decay and step counts after a converted state is loaded.
- `single_rank.step_in_place`: one rank on a CPU makes no copies to send.
- `state_files.restricted_unpickling`: reading a state runs no code of it.
- `checkpoint/universal.py`: files that the converted state lacks.
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
"""Key in DeepSpeed's client state under which the run's own state is saved."""
BUCKET = 50_000_000
"""Elements of the gradient sent together. DeepSpeed's own 5e8 holds all of a ViT-L: nothing overlaps."""


def is_alone(train: Train, ranks: int) -> bool:
    """Whether one rank on a CPU takes the step, with nothing to send or to gather: see `single_rank.py`."""
    return ranks == 1 and train.zero_stage < 3 and not (train.offload_optimizer or torch.cuda.is_available())


def zero_stage(train: Train, ranks: int) -> int:
    """The ZeRO stage that runs.

    0 runs as 1, which computes the same. One rank alone on a CPU has nothing to divide: below 3 it runs as 2.
    """
    # DeepSpeed 0.19.8 refuses stage 0 with bf16 weights and fp32 accumulation (NotImplementedError:
    # unsupported mix), and a state of stage 0 cannot be converted to another number of ranks.
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
    # `train_batch_size` is left out: given too, it would have to equal the product of the other two and the
    # ranks.
    return {
        "train_micro_batch_size_per_gpu": cut.micro,
        "gradient_accumulation_steps": cut.accumulation,
        "gradient_clipping": optim.clip_grad,
        "bf16": {
            "enabled": train.precision == "bf16",
            "immediate_grad_update": True,
            "check_grad_overflow": False,  # AdamW itself skips such a step: `_skip_bad_steps_on_device`
        },
        # Otherwise gradients of bf16 weights are added up in bf16, and small ones are lost.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        # DeepSpeed refuses torch's own AdamW, and with an offloaded state insists on its CPU Adam, which it
        # would have to compile.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
        # DeepSpeed's throughput timer, on by default, synchronizes the device in every pass.
        "timers": {"throughput": {"enabled": False}},
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
    # Here and below, not at the top: the import takes seconds, and reads DS_ACCELERATOR.
    import deepspeed

    _skip_shm_operator()
    with redirect_stdout(StringIO()):
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo")
    # A second group, on the hosts: what ranks exchange while a step runs must not queue behind it on the
    # device.
    hosts = dist.new_group(backend="gloo") if world.size > 1 else None
    return RankGroup(world, device, hosts)


def _skip_shm_operator() -> None:
    """Have DeepSpeed join ranks on CPUs without its operator for shared memory.

    Patch of DeepSpeed 0.19.8. `init_distributed` compiles that operator with gcc and ninja, for half a minute
    at the first start. It serves inference; training never calls it. Without the patch a first start on CPUs
    takes that much longer, and fails where there is no compiler.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon module without torch's compiler.

    Patch of DeepSpeed 0.19.8. Its optimizers import this module in a step, even where the optimizer is not
    Muon, and three functions in it are decorated to be compiled, which imports torch's compiler. Without the
    patch nothing fails, but each start takes about a second longer.
    """
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

    _import_muon_uncompiled()
    # lr 0: `set_lr` sets the rate of every step. Fused, for only that AdamW takes `found_inf` (see below).
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, eps=optim.eps, fused=True)
    settings = ds_config(train, optim, cut, universal)
    with redirect_stdout(StringIO()):
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    if is_alone(train, cut.world):
        step_in_place(engine.optimizer)
    else:
        _skip_bad_steps_on_device(engine.optimizer, optimizer)
    return engine


def _skip_bad_steps_on_device(sharded: Any, optimizer: torch.optim.Optimizer) -> None:
    """Have AdamW itself skip a step whose gradient is not finite, on the device.

    Patch of DeepSpeed 0.19.8, which reads three values from the device in each step, and so waits for it:
    whether the norm is finite, the mark -1 where it is not, and whether the gradient is to be clipped. Here
    fused AdamW takes the norm's verdict as a tensor (`found_inf`), as torch's GradScaler gives it. Without
    the patch every step of a GPU waits for its own end before the next one can be queued; weights and losses
    stay the same.
    """
    from deepspeed.runtime import bf16_optimizer, utils
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    # In the modules that use them, for each has imported the function by its name.
    # Without: `bool(tensor)` in each step.
    for module in (bf16_optimizer, stage_1_and_2, stage3):
        module.is_invalid_grad_norm = lambda norm: False
    # Without: a masked fill that reads its value from the device. The norm then stays inf or NaN, as AdamW
    # needs it.
    for module in (utils, stage_1_and_2, stage3):
        module.mask_nan_or_inf_with_val_inplace = lambda norm, **_: None
    # Without: `if clip_coef < 1` in each step that clips.
    bf16_optimizer.clip_tensors_by_global_norm = _clip

    def set_found_inf(*_: Any) -> None:
        norm = sharded._global_grad_norm
        optimizer.found_inf = None if norm is None else (~_true_norm(norm).isfinite()).float()  # type: ignore[attr-defined]

    optimizer.register_step_pre_hook(set_found_inf)


def _clip(input_tensors: Iterable[Tensor], max_norm: float, global_norm: Tensor, **_: Any) -> None:
    """Clip gradients in place; the factor stays on the device, and is 1 where nothing is to be clipped."""
    # 1e-6 as DeepSpeed's own `eps`.
    factor = (max_norm / (global_norm + 1e-6)).clamp(max=1.0)
    for tensor in input_tensors:
        tensor.detach().mul_(factor)


def _true_norm(norm: Any) -> Tensor:
    """The gradient's norm; inf where DeepSpeed (0.19.8) marks one that is not finite by -1.

    It still does so where AdamW's state is on the host.
    """
    norm = torch.as_tensor(norm)
    return torch.where(norm < 0, torch.inf, norm)


def set_lr(engine: Any, lr: float) -> None:
    """The next step's learning rate."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr


def step(engine: Any) -> Tensor | None:
    """End a micro-batch. The last one of a batch moves the weights and gives the gradient's norm."""
    # Asked before `engine.step`, which counts the passes on.
    boundary = engine.is_gradient_accumulation_boundary()
    engine.step()
    return _true_norm(engine.get_global_grad_norm()) if boundary else None


def snapshot(engine: Any, folder: str, client_state: dict[str, Any]) -> dict[str, Any]:
    """Copy this rank's part of the training state to host memory; gives it by path of the file in `folder`.

    Every rank must call it; `torch.save` of each value at its path makes what `load` reads.
    """
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    state: dict[str, Any] = {}

    # DeepSpeed's save writes the files itself, and training would stand still for as long. Its checkpoint
    # engine is the one place where it hands over what belongs in each file.
    class Collector(TorchCheckpointEngine):  # type: ignore[misc]
        def save(self, state_dict: Any, path: str) -> None:
            state[path] = _on_host(state_dict)

    writer, engine.checkpoint_engine = engine.checkpoint_engine, Collector()
    try:
        with redirect_stdout(StringIO()):
            # No `latest` file: DeepSpeed writes it in place, and COMMIT.json says which checkpoint counts.
            engine.save_checkpoint(folder, tag=TAG, client_state=client_state, save_latest=False)
    finally:
        engine.checkpoint_engine = writer
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the copies below were only queued
    return state


def _to_host(value: Tensor) -> Tensor:
    """A copy in host memory; a GPU's is page-locked, and complete once the device is waited for."""
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
    # Three repairs after a load, for DeepSpeed 0.19.8. Without the first nothing is clipped after a state
    # that stage 3 wrote, which holds no `clip_grad`. Without the second biases and norms decay, for stage 3
    # gives every group the settings of the first. Without the third AdamW's bias correction is wrong: stage 3
    # gives all parameters one tensor for the step, and each of them counts it up.
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
    engine.optimizer.clip_grad = clip
    for group, group_settings in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(group_settings)
    for state in engine.optimizer.optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()
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
    """Where the ranks of a Slurm step meet: its first host, at a port that follows from the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", ""))
    hosts = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    _set_where_empty("MASTER_ADDR", hosts.stdout.split()[0])
    # The same port on every rank, and rarely the same one for two jobs that share a host.
    _set_where_empty("MASTER_PORT", str(20000 + whole_number(os.environ, "SLURM_JOB_ID", 0) % 20000))
