"""Loads a checkpoint into an engine, at any number of ranks and any ZeRO stage.

A state of another number of ranks or another stage is converted to DeepSpeed's universal format, once: the
result is uploaded to the checkpoint's folder for the next start, with a commit of its own. That format has
only trained tensors. The others are read from the checkpoint's weights.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from retfound_dist.errors import CheckpointError, RecordError, RetfoundError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import UNIVERSAL, Commit
from retfound_dist.io import storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.records import json_reader
from retfound_dist.train.checkpoint.resume import read_with_retries
from retfound_dist.train.checkpoint.universal import convert
from retfound_dist.train.engine import state_files
from retfound_dist.train.engine.training_engine import STATE_FOLDER, TrainingEngine
from retfound_dist.train.ranks import upload_process
from retfound_dist.train.ranks.collectives import RankGroup

SOURCE_FILES = "source.json"
"""A file of a converted state: size and sha256 of each file that it was made from."""
_MODULE_STATES = f"{checkpoint_folder.STATE}/mp_rank_00_model_states.pt"
"""The file in which stages 1 and 2 store the working copy of all weights."""


def needs_conversion(commit: Commit, world_size: int, zero_stage: int) -> bool:
    """Whether the state was written by another number of ranks or ZeRO stage."""
    return (commit.world_size, commit.zero_stage) != (world_size, zero_stage)


def untrained(model: nn.Module) -> dict[str, Tensor]:
    """Tensors that the optimizer does not change: frozen parameters and saved buffers. No copies."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in trained}


def read_untrained(model: nn.Module, commit: Commit, scratch: str) -> str:
    """Copy a checkpoint's untrained tensors into a model in fp32; returns a note for the user, or ""."""
    tensors = untrained(model)
    with new_temporary_folder(scratch) as folder:
        with safe_open(_local_copy(commit, commit.weights, folder), "pt") as file:
            missing = tensors.keys() - set(file.keys())
            if missing:
                names = ", ".join(sorted(missing))
                raise CheckpointError(f"{commit.url} holds no {names}; use another checkpoint")
            for name, tensor in tensors.items():
                tensor.copy_(file.get_tensor(name))
        # Earlier versions committed newly computed positions after a resume. The state has those that the run
        # was trained with, in the working precision. They are used if the two differ.
        module = next((name for name, saved in commit.state.items() if saved == _MODULE_STATES), "")
        if not module:  # stage 3 stores it in parts
            return ""
        state = state_files.read(
            _local_copy(commit, module, folder), storage.join(commit.url, module), mmap=True
        )
        return _correct_untrained(tensors, state["module"], commit)


def _correct_untrained(
    tensors: Mapping[str, Tensor], working_copies: Mapping[str, Tensor], commit: Commit
) -> str:
    """Replace tensors that differ from those in the training state; returns a note for the user, or "".

    `working_copies`: the tensors of the training state, in the working precision.
    """
    differing = [
        name
        for name, tensor in tensors.items()
        if name in working_copies
        and not torch.equal(tensor.to(working_copies[name].dtype), working_copies[name])
    ]
    for name in differing:
        tensors[name].copy_(working_copies[name])
    if not differing:
        return ""
    names = ", ".join(differing)
    return f"{names}: read from the training state, because the weights of step {commit.step} differ"


def _local_copy(commit: Commit, name: str, folder: str) -> str:
    """The local path of a checkpoint's file, or of a verified copy."""
    where = storage.join(commit.url, name)
    if storage.is_local(where):
        return storage.local_path(where)
    path = os.path.join(folder, "file")
    checkpoint_folder.fetch(commit, name, path)
    return path


def restore(
    group: RankGroup, engine: TrainingEngine, commit: Commit, zero_stage: int, patience_s: float, scratch: str
) -> dict[str, Any]:
    """Load a checkpoint's state into the engine; every rank must call it. Returns its `run_state`.

    `scratch`: a folder that all ranks of a host share.
    """
    scratch = os.path.join(scratch, "restore")
    if group.world.local_rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
    converting = needs_conversion(commit, group.world.size, zero_stage)
    try:
        if converting:
            _fetch_once_per_host(group, scratch, lambda: _fetch_universal(commit, scratch, patience_s))
        else:
            _fetch_once_per_host(
                group, scratch, lambda: _fetch_files(commit, commit.state, scratch, patience_s)
            )
        run_state = engine.load(scratch, UNIVERSAL if converting else STATE_FOLDER)
        group.broadcast(None)  # a barrier: all ranks must have read the folder before `finally` removes it
        return run_state
    finally:
        if group.world.local_rank == 0:
            shutil.rmtree(scratch, ignore_errors=True)


def _fetch_once_per_host(group: RankGroup, scratch: str, fetch: Callable[[], None]) -> None:
    """Fetch on rank 0 first, then on one rank of each other host; all ranks raise the error of any."""
    # Rank 0 first: it converts the state and commits the result, which the other hosts then only fetch.
    for is_fetching in (group.world.is_main, not group.world.is_main and group.world.local_rank == 0):
        fault: RetfoundError | None = None
        if is_fetching:
            try:
                fetch()
            except (RetfoundError, OSError, MemoryError) as error:
                kind = (
                    CheckpointError
                    if isinstance(error, RetfoundError) and error.is_permanent
                    else StorageError
                )
                reason = str(error) or "out of memory"  # a MemoryError has no text
                fault = kind(f"the checkpoint cannot be loaded on {platform.node()}: {reason}")
        if faults := [fault for fault in group.gather(fault) if fault]:
            raise faults[0]


def _fetch_files(commit: Commit, names: Mapping[str, str], folder: str, patience_s: float) -> None:
    """Copy and verify files of a checkpoint. `names`: for each file, its name in the folder."""

    def fetch(name: str) -> None:
        get = partial(checkpoint_folder.fetch, commit, name, os.path.join(folder, names[name]))
        read_with_retries(commit.url, patience_s, f"the checkpoint of step {commit.step}", get)

    with ThreadPoolExecutor(upload_process.FILES_AT_ONCE) as pool:
        list(pool.map(fetch, names))
    state_files.check_folder(folder, commit.url)


def _fetch_universal(commit: Commit, scratch: str, patience_s: float) -> None:
    """Fetch the converted state. If there is none yet, convert the state and upload the result."""
    folder = os.path.join(scratch, UNIVERSAL)
    converted = [name for name in storage.list_names(commit.url) if name.partition("-")[0] == UNIVERSAL]
    for name in converted:
        universal_url = storage.join(commit.url, name)
        try:
            if checkpoint_folder.is_checkpoint(universal_url):
                _fetch_matching(checkpoint_folder.read_commit(universal_url), commit, folder, patience_s)
                return
        except (CheckpointError, RecordError) as error:  # not StorageError: a store that fails says nothing
            shutil.rmtree(folder, ignore_errors=True)
            print(f"retfound: the state is converted again: {error}", file=sys.stderr)
    _fetch_files(commit, commit.state, scratch, patience_s)
    convert(scratch)
    storage.write_json(os.path.join(folder, SOURCE_FILES), _source_files(commit))
    universal_url = storage.join(
        commit.url, checkpoint_folder.name_with_mark(UNIVERSAL, checkpoint_folder.new_mark())
    )
    files = upload_process.upload(folder, universal_url, patience_s)
    checkpoint_folder.write_commit(replace(commit, url=universal_url, files=files))
    # Last: earlier conversions are of another state, damaged, or were never committed.
    for name in converted:
        storage.delete(storage.join(commit.url, name))


def _source_files(commit: Commit) -> dict[str, Any]:
    """The contents of the files that a state is made of. A step that was saved again has another state."""
    return {saved: asdict(commit.files[name]) for name, saved in commit.state.items()}


def _fetch_matching(converted: Commit, commit: Commit, folder: str, patience_s: float) -> None:
    """Fetch a converted state; CheckpointError if it was not made from this checkpoint."""
    where = storage.join(converted.url, SOURCE_FILES)
    if SOURCE_FILES not in converted.files or json_reader.read(where, dict[str, Any], "") != _source_files(
        commit
    ):
        raise CheckpointError(f"{converted.url} was made of another checkpoint's state")
    _fetch_files(converted, {name: name for name in converted.files}, folder, patience_s)
