"""Converts a training state to DeepSpeed's universal format, which any number of ranks and any stage loads.

Work-around for DeepSpeed 0.19.8: stages 1 and 2 write and read other files in that format than stage 3. After
the conversion the missing files are added. Without them only the same kind of stage can load a state. The
`_complete_...` functions say what fails.
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
from retfound_dist.io.disk_errors import FULL_BELOW_BYTES
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.training_engine import STATE_FOLDER

_OPTIMIZER, _GROUPS = "optimizer_state_dict", "param_groups"
_SHARDS = "fp32_flat_groups"


def convert(folder: str) -> None:
    """Convert `folder/state` to `folder/universal` in a separate process; CheckpointError if that fails."""
    state_files.check_folder(os.path.join(folder, STATE_FOLDER), STATE_FOLDER)
    # A process, because DeepSpeed's converter forks workers, and this process has a process group and perhaps
    # a GPU. It runs this module, so that it reads files with `state_files` (see the last lines).
    command = [
        sys.executable,
        "-m",
        __name__,
        "--inject_missing_state",
        "--input_folder",
        os.path.join(folder, STATE_FOLDER),
        "--output_folder",
        os.path.join(folder, UNIVERSAL),
        # With one worker it does not fork.
        "--num_extract_workers",
        "1",
        "--num_merge_workers",
        "1",
    ]
    # Without these variables, which would make the process a rank of the run.
    rank_variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    env = {name: value for name, value in os.environ.items() if name not in rank_variables}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        # Its traceback does not always show that a disk is full. Then the checkpoint is not damaged, and must
        # not be skipped.
        if shutil.disk_usage(folder).free < FULL_BELOW_BYTES:
            with verified_files.local_disk_errors(os.path.join(folder, UNIVERSAL)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"the checkpoint could not be converted to this number of ranks: {reason}")
    target = Path(folder, UNIVERSAL)
    shapes = _complete_names(target)
    _complete_optimizer(target / "zero")
    _complete_parameters(target / "zero", shapes)


def _complete_names(folder: Path) -> dict[str, torch.Size]:
    """Copy the file that belongs to no rank to its other name; returns the shapes of all parameters.

    Stage 3 uses another name than stages 1 and 2: without the copy the other kind does not find the file.
    """
    names = ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"]
    written = next(folder / name for name in names if (folder / name).exists())
    for name in names:
        if not (folder / name).exists():
            shutil.copyfile(written, folder / name)
    groups = state_files.read(written)["param_shapes"]
    return {name: shape for group in groups for name, shape in group.items()}


def _complete_parameters(folder: Path, shapes: dict[str, torch.Size]) -> None:
    """Restore the shapes of stage 3's tensors: it writes flat tensors, stages 1 and 2 read dictionaries.

    Without this stages 1 and 2 fail, because they look up `param` in a tensor.
    """
    for name, shape in shapes.items():
        for kind in ("fp32", "exp_avg", "exp_avg_sq"):
            where = folder / name / f"{kind}.pt"
            value = torch.load(where, weights_only=True)
            if isinstance(value, torch.Tensor):
                torch.save({"param": value.reshape(shape), "cat_dim": 0}, where)


def _complete_optimizer(folder: Path) -> None:
    """Write AdamW's step and groups to the files that each stage reads.

    Stage 3 reads the step from `optimizer_state.pt`, stages 1 and 2 from a `step.pt` of each parameter.
    """

    where = folder / "optimizer_state.pt"
    state: dict[str, Any] = state_files.read(where)
    parameters = [path for path in folder.iterdir() if path.is_dir()]
    if _OPTIMIZER in state:
        step = next(iter(state[_OPTIMIZER]["state"].values()))["step"]
    else:
        # Not with `state_files`: a child of this process wrote these files.
        step = torch.load(parameters[0] / "step.pt", weights_only=True)
    for path in parameters:
        torch.save(step, path / "step.pt")
    state = {key: value for key, value in state.items() if key not in (_OPTIMIZER, _SHARDS)}
    state[_OPTIMIZER] = {"state": {0: {"step": step}}, _GROUPS: state[_GROUPS]}
    # DeepSpeed needs the key, but its value is not used: `DeepSpeedEngine.load` keeps the run's own clipping.
    torch.save({"clip_grad": 0.0, "ds_version": version("deepspeed"), **state}, where)


if __name__ == "__main__":
    with state_files.restricted_unpickling():
        runpy.run_module("deepspeed.checkpoint.ds_to_universal", run_name="__main__", alter_sys=True)
