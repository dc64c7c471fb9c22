"""Converts a training state to DeepSpeed's universal format, which any number of ranks and any stage loads.

Work-around for DeepSpeed 0.19.8: stages 1 and 2 on the one hand and stage 3 on the other write and read
different files in that format. What either misses is added, from what the other wrote. Without it a state
goes on only at the same kind of stage; the `_complete_...` functions say what fails.
"""

from __future__ import annotations

import errno
import os
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from retfound_dist.errors import CheckpointError
from retfound_dist.formats.checkpoint_folder import UNIVERSAL
from retfound_dist.io import verified_files
from retfound_dist.io.disk_errors import FULL_BELOW
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.training_engine import STATE_FOLDER

_OPTIMIZER, _GROUPS = "optimizer_state_dict", "param_groups"
_SHARDS = "fp32_flat_groups"


def convert(folder: str) -> None:
    """Convert `folder/state` to `folder/universal`; CheckpointError where that fails.

    DeepSpeed does it in a process of its own.
    """
    state_files.check_folder(os.path.join(folder, STATE_FOLDER), STATE_FOLDER)
    # A process: the converter is a program that forks workers, and this process holds a process group and
    # perhaps a GPU. It is started as this very module, so that it reads files by `state_files` (last lines).
    command = [
        sys.executable,
        "-m",
        __name__,
        "--inject_missing_state",
        "--input_folder",
        os.path.join(folder, STATE_FOLDER),
        "--output_folder",
        os.path.join(folder, UNIVERSAL),
        # One worker each: more would be forked.
        "--num_extract_workers",
        "1",
        "--num_merge_workers",
        "1",
    ]
    # Without the variables of the ranks, which a child would take to be its own place among them.
    env = {
        k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        # Its traceback does not always say that a disk is full. Then the checkpoint is good, and must not be
        # passed over.
        if shutil.disk_usage(folder).free < FULL_BELOW:
            with verified_files.local_disk_errors(os.path.join(folder, UNIVERSAL)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"the checkpoint could not be converted to this number of ranks: {reason}")
    target = Path(folder, UNIVERSAL)
    shapes = _complete_names(target)
    _complete_optimizer(target / "zero")
    _complete_parameters(target / "zero", shapes)


def _complete_names(folder: Path) -> dict[str, torch.Size]:
    """Put the file that belongs to no rank under both its names; gives the shapes of all parameters.

    Stage 3 writes and reads another name than stages 1 and 2: without this the other kind finds no such file.
    """
    names = ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"]
    written = next(folder / name for name in names if (folder / name).exists())
    for name in names:
        if not (folder / name).exists():
            shutil.copyfile(written, folder / name)
    groups = state_files.read(written)["param_shapes"]
    return {name: shape for group in groups for name, shape in group.items()}


def _complete_parameters(folder: Path, shapes: dict[str, torch.Size]) -> None:
    """Give tensors that stage 3 wrote their shape: it writes them flat, stages 1 and 2 read dictionaries.

    Without this stages 1 and 2 fail on a tensor where they look up `param`.
    """
    for name, shape in shapes.items():
        for kind in ("fp32", "exp_avg", "exp_avg_sq"):
            where = folder / name / f"{kind}.pt"
            value = torch.load(where, weights_only=True)
            if isinstance(value, torch.Tensor):
                torch.save({"param": value.reshape(shape), "cat_dim": 0}, where)


def _complete_optimizer(folder: Path) -> None:
    """Put AdamW's step and groups where each stage looks for them.

    Stage 3 reads the step from `optimizer_state.pt`, stages 1 and 2 from a `step.pt` of each parameter.
    """

    where = folder / "optimizer_state.pt"
    state: dict[str, Any] = state_files.read(where)
    parameters = [path for path in folder.iterdir() if path.is_dir()]
    if _OPTIMIZER in state:
        step = next(iter(state[_OPTIMIZER]["state"].values()))["step"]
    else:
        # Not by `state_files`: these files are of this process's own child.
        step = torch.load(parameters[0] / "step.pt", weights_only=True)
    for path in parameters:
        torch.save(step, path / "step.pt")
    state = {key: value for key, value in state.items() if key not in (_OPTIMIZER, _SHARDS)}
    state[_OPTIMIZER] = {"state": {0: {"step": step}}, _GROUPS: state[_GROUPS]}
    # 0 is only there to be found; `DeepSpeedEngine.load` keeps the run's own clipping.
    torch.save({"clip_grad": 0.0, "ds_version": version("deepspeed"), **state}, where)


if __name__ == "__main__":
    with state_files.restricted_unpickling():
        runpy.run_module("deepspeed.checkpoint.ds_to_universal", run_name="__main__", alter_sys=True)
