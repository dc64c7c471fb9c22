"""Checkpoints: every rank writes its part, rank 0 commits; the newest good one is resumed.

`state/` holds DeepSpeed's sharded training state, `model.safetensors` all weights in fp32 under MAE's
names. A state of another number of ranks or another ZeRO stage is converted through DeepSpeed's
universal format.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from retfound_dist import commit, storage
from retfound_dist.commit import Commit
from retfound_dist.errors import CheckpointError, RetfoundError
from retfound_dist.schema import Checkpoint
from retfound_dist.train import engine as ds
from retfound_dist.train.engine import Group

Say = Callable[[str], None]
UNIVERSAL = "universal"


@dataclass(frozen=True)
class Position:
    """How far a run is: what COMMIT.json says beside its files."""

    step: int
    samples: int
    batch_digest: str


def save(
    group: Group, engine: Any, fixed: dict[str, Tensor], run_url: str, at: Position, config: dict[str, Any]
) -> Commit:
    """Write and commit the checkpoint of a step; every rank must call it."""
    url = commit.checkpoint_url(run_url, at.step)
    weights = ds.full_state(engine, fixed)
    with tempfile.TemporaryDirectory(prefix="retfound-checkpoint-") as scratch:
        ds.save(engine, scratch, {**asdict(at), "universal_checkpoint_info": {}})
        if group.world.is_main:
            safetensors.torch.save_file(weights, os.path.join(scratch, commit.WEIGHTS))
        files, fault = {}, ""
        try:
            files = _upload(scratch, url)
        except RetfoundError as error:
            fault = f"rank {group.world.rank}: {error}"
        parts = group.gather((files, fault))
    if faults := [part[1] for part in parts if part[1]]:
        raise CheckpointError(f"step {at.step} could not be saved: {faults[0]}")
    held = Commit(
        url=url,
        step=at.step,
        samples=at.samples,
        batch_digest=at.batch_digest,
        world_size=group.world.size,
        zero_stage=engine.zero_optimization_stage(),
        precision=config["train"]["precision"],
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config,
        files={name: info for part in parts for name, info in sorted(part[0].items())},
    )
    if group.world.is_main:
        commit.write_commit(held)
    group.share(None)
    return held


def _upload(scratch: str, url: str) -> dict[str, storage.FileInfo]:
    """Copy what this rank wrote; its files by name below the checkpoint (not DeepSpeed's helper scripts)."""
    files = {}
    for path in sorted(Path(scratch).rglob("*")):
        if path.is_file() and path.suffix != ".py":
            name = path.relative_to(scratch).as_posix()
            files[name] = storage.file_info(str(path))
            storage.put_file(str(path), storage.join(url, name))
    return files


def prune(run_url: str, keep: Checkpoint) -> None:
    """Remove the training state of old checkpoints; the newest `keep_last` always stay.

    Weights stay, so that every checkpoint can still be evaluated; the commit is rewritten first.
    """
    for step in commit.list_steps(run_url)[: -keep.keep_last]:
        if keep.keep_every_steps and step % keep.keep_every_steps == 0:
            continue
        held = commit.read_commit(commit.checkpoint_url(run_url, step))
        state = [name for name in held.files if name.startswith(ds.TAG + "/")]
        if state:
            kept = {name: info for name, info in held.files.items() if name not in state}
            commit.write_commit(Commit(**{**_shallow(held), "files": kept}))
            storage.delete(storage.join(held.url, ds.TAG))


def _shallow(held: Commit) -> dict[str, Any]:
    return {name: getattr(held, name) for name in held.__dataclass_fields__}


def find(run_url: str, say: Say) -> Commit | None:
    """The newest checkpoint whose files all match their commit; what is passed over is named."""
    for step in reversed(commit.list_steps(run_url)):
        url = commit.checkpoint_url(run_url, step)
        try:
            held = commit.read_commit(url)
            if not any(name.startswith(ds.TAG + "/") for name in held.files):
                continue
            _verify(held)
            return held
        except RetfoundError as error:
            say(f"passing over the checkpoint of step {step}: {error}")
    return None


def _verify(held: Commit) -> None:
    with tempfile.TemporaryDirectory(prefix="retfound-verify-") as scratch:
        for name, info in held.files.items():
            where = storage.join(held.url, name)
            if storage.is_local(where):
                path = storage.local_path(where)
                found = storage.file_info(path) if os.path.exists(path) else None
            else:
                found = storage.get_file(where, os.path.join(scratch, "file"))
            if found != info:
                raise CheckpointError(f"{where} differs from its commit")


def needs_conversion(held: Commit, world_size: int, zero_stage: int) -> bool:
    """Whether the state was written by another number of ranks or ZeRO stage."""
    return (held.world_size, held.zero_stage) != (world_size, zero_stage)


def restore(group: Group, engine: Any, held: Commit, zero_stage: int) -> None:
    """Bring the engine to a checkpoint's state; every rank must call it."""
    scratch = group.share(tempfile.mkdtemp(prefix="retfound-restore-") if group.world.is_main else None)
    try:
        folder = os.path.join(scratch, "checkpoint")
        if group.world.local_rank == 0:
            _fetch_state(held, folder)
        group.share(None)
        if needs_conversion(held, group.world.size, zero_stage):
            if group.world.local_rank == 0:
                _convert(folder)
            group.share(None)
            ds.load(engine, folder, UNIVERSAL)
        else:
            ds.load(engine, folder, ds.TAG)
        group.share(None)
    finally:
        if group.world.local_rank == 0:
            shutil.rmtree(scratch, ignore_errors=True)


def _fetch_state(held: Commit, folder: str) -> None:
    for name, info in held.files.items():
        where = storage.join(held.url, name)
        if name.startswith(ds.TAG + "/") and storage.get_file(where, os.path.join(folder, name)) != info:
            raise CheckpointError(f"{where} differs from its commit")


def _convert(folder: str) -> None:
    """DeepSpeed's own conversion, in a process of its own; its temporary files stay in scratch."""
    command = [
        sys.executable,
        "-m",
        "deepspeed.checkpoint.ds_to_universal",
        "--inject_missing_state",
        "--input_folder",
        os.path.join(folder, ds.TAG),
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
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"the checkpoint could not be converted to this number of ranks: {reason}")
