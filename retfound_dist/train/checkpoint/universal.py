"""DeepSpeed's universal format, made whole: stages 1 and 2 on the one hand and 3 on the other write and want
different files in it (deepspeed 0.19.8). What either misses is put there, from what the other wrote.
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
from retfound_dist.train.engine.deepspeed_engine import TAG

_OPTIMIZER, _GROUPS = "optimizer_state_dict", "param_groups"
_SHARDS = "fp32_flat_groups"


def convert(folder: str) -> None:
    """Convert `folder/state` to `folder/universal`, which every stage and number of ranks loads.

    DeepSpeed does it, in a process of its own, which reads by `state_files` too.
    """
    state_files.check_folder(os.path.join(folder, TAG), TAG)
    command = [
        sys.executable,
        "-m",
        __name__,
        "--inject_missing_state",
        "--input_folder",
        os.path.join(folder, TAG),
        "--output_folder",
        os.path.join(folder, UNIVERSAL),
        "--num_extract_workers",
        "1",
        "--num_merge_workers",
        "1",
    ]
    env = {
        k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        if shutil.disk_usage(folder).free < FULL_BELOW:
            with verified_files.here(os.path.join(folder, UNIVERSAL)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"the checkpoint could not be converted to this number of ranks: {reason}")
    target = Path(folder, UNIVERSAL)
    shapes = _complete_names(target)
    _complete_optimizer(target / "zero")
    _complete_parameters(target / "zero", shapes)


def _complete_names(folder: Path) -> dict[str, torch.Size]:
    """Stage 3 has a name of its own for the file with what belongs to no rank; gives what shapes it tells."""
    names = ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"]
    there = next(folder / name for name in names if (folder / name).exists())
    for name in names:
        if not (folder / name).exists():
            shutil.copyfile(there, folder / name)
    told = state_files.read(there)["param_shapes"]
    return {name: shape for group in told for name, shape in group.items()}


def _complete_parameters(folder: Path, shapes: dict[str, torch.Size]) -> None:
    """Stage 3 writes flat tensors, the others want them in their shape, each in a dictionary."""
    for name, shape in shapes.items():
        for kind in ("fp32", "exp_avg", "exp_avg_sq"):
            where = folder / name / f"{kind}.pt"
            value = torch.load(where, weights_only=True)
            if isinstance(value, torch.Tensor):
                torch.save({"param": value.reshape(shape), "cat_dim": 0}, where)


def _complete_optimizer(folder: Path) -> None:
    """AdamW's step and groups, where each stage looks for them. The files are this process's child's."""

    where = folder / "optimizer_state.pt"
    state: dict[str, Any] = state_files.read(where)
    parameters = [path for path in folder.iterdir() if path.is_dir()]
    if _OPTIMIZER in state:
        step = next(iter(state[_OPTIMIZER]["state"].values()))["step"]
    else:
        step = torch.load(parameters[0] / "step.pt", weights_only=True)
    for path in parameters:
        torch.save(step, path / "step.pt")
    state = {key: value for key, value in state.items() if key not in (_OPTIMIZER, _SHARDS)}
    state[_OPTIMIZER] = {"state": {0: {"step": step}}, _GROUPS: state[_GROUPS]}
    torch.save({"clip_grad": 0.0, "ds_version": version("deepspeed"), **state}, where)


if __name__ == "__main__":
    with state_files.restricted_unpickling():
        runpy.run_module("deepspeed.checkpoint.ds_to_universal", run_name="__main__", alter_sys=True)
