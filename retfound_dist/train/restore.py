"""Resuming: the newest checkpoint that is whole, brought to this number of ranks and ZeRO stage.

A state of another number of ranks or another stage is converted through DeepSpeed's universal format, once:
the result stands beside the checkpoint, committed like it, for the next start. What is not trained is no part
of that format, and is read from the checkpoint's weights.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from retfound_dist import commit, storage
from retfound_dist.commit import Commit
from retfound_dist.errors import CheckpointError, RetfoundError, StorageError
from retfound_dist.retry import Patience, is_passing
from retfound_dist.train import engine as ds
from retfound_dist.train import keeper, state_files
from retfound_dist.train.group import Group
from retfound_dist.train.universal import UNIVERSAL, convert

Say = Callable[[str], None]
SOURCE = "source.json"
"""Beside a converted state: size and sha256 of each file that it was made of."""
_MODULE = f"{ds.TAG}/mp_rank_00_model_states.pt"
"""Where stages 1 and 2 keep the working copy of all weights."""


def find(run_url: str, say: Say, scratch: str, patience_s: float) -> Commit | None:
    """The newest checkpoint whose files all match their commit; what is passed over is named.

    A store that does not answer is asked for `patience_s`, then StorageError: the checkpoint may be good.
    """
    for step in reversed(commit.list_steps(run_url)):
        patience = Patience(run_url, patience_s)
        while True:
            try:
                held = _verified(commit.checkpoint_url(run_url, step), scratch)
            except (RetfoundError, OSError) as error:
                if storage.is_local(run_url) or not _may_pass(error):
                    say(f"passing over the checkpoint of step {step}: {error}")
                    break
                if not patience.wait(error):
                    raise StorageError(
                        f"the checkpoint of step {step} cannot be read, and may be good: {error} (tried for "
                        f"{patience_s:.0f} s); start again when the store answers"
                    ) from error
            else:
                if held:
                    return held
                break
    return None


def _may_pass(error: BaseException | None) -> bool:
    """Whether the store failed, not the checkpoint."""
    while isinstance(error, RetfoundError):
        error = error.__cause__
    return error is not None and is_passing(error)


def _verified(url: str, scratch: str) -> Commit | None:
    """A checkpoint that is whole; None where its training state has been removed."""
    held = commit.read_commit(url)
    if not any(name.startswith(ds.TAG + "/") for name in held.files):
        return None
    _verify(held, scratch)
    return held


def _verify(held: Commit, scratch: str) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for name, info in held.files.items():
            where = storage.join(held.url, name)
            if storage.is_local(where):
                path = storage.local_path(where)
                found = storage.file_info(path) if os.path.exists(path) else None
            else:
                found = storage.get_file(where, os.path.join(folder, "file"))
            if found != info:
                raise CheckpointError(f"{where} differs from its commit")


def needs_conversion(held: Commit, world_size: int, zero_stage: int) -> bool:
    """Whether the state was written by another number of ranks or ZeRO stage."""
    return (held.world_size, held.zero_stage) != (world_size, zero_stage)


def untrained(model: nn.Module) -> dict[str, Tensor]:
    """What no optimizer moves: frozen parameters, and buffers that are saved; no copies."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in trained}


def read_untrained(model: nn.Module, held: Commit, scratch: str) -> str:
    """Put all that is not trained into a model in fp32, as the checkpoint has it; gives a remark, or nothing.

    Earlier versions committed fresh positions after a resume. The state tells which the run was trained with,
    in the working precision: those are taken where the two differ.
    """
    own = untrained(model)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        with safe_open(_local(held, commit.WEIGHTS, folder), "pt") as file:
            absent = own.keys() - set(file.keys())
            if absent:
                names = ", ".join(sorted(absent))
                raise CheckpointError(f"{held.url} holds no {names}; use another checkpoint")
            for name, tensor in own.items():
                tensor.copy_(file.get_tensor(name))
        if _MODULE not in held.files:  # stage 3 has it in parts
            return ""
        state = state_files.read(_local(held, _MODULE, folder), storage.join(held.url, _MODULE), mmap=True)
        return _as_trained_with(own, state["module"], held)


def _as_trained_with(own: Mapping[str, Tensor], working: Mapping[str, Tensor], held: Commit) -> str:
    wrong = [
        name
        for name, tensor in own.items()
        if name in working and not torch.equal(tensor.to(working[name].dtype), working[name])
    ]
    for name in wrong:
        own[name].copy_(working[name])
    if not wrong:
        return ""
    return f"{', '.join(wrong)} as the run was trained with; the weights of step {held.step} hold others"


def _local(held: Commit, name: str, folder: str) -> str:
    """A local path of a checkpoint's file: itself, or a copy that is checked."""
    where = storage.join(held.url, name)
    if storage.is_local(where):
        return storage.local_path(where)
    path = os.path.join(folder, "file")
    commit.fetch(held, name, path)
    return path


def restore(
    group: Group, engine: Any, held: Commit, zero_stage: int, patience_s: float, scratch: str
) -> dict[str, Any]:
    """Bring the engine to a checkpoint's state; every rank must call it. Gives what `Saver.save` was told.

    `scratch`: a folder that all ranks of a host share.
    """
    scratch = os.path.join(scratch, "restore")
    if group.world.local_rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
    converting = needs_conversion(held, group.world.size, zero_stage)
    try:
        if converting:
            _in_turns(group, scratch, lambda: _fetch_universal(held, scratch, patience_s))
        else:
            _in_turns(group, scratch, lambda: _fetch(held, ds.TAG, scratch))
        told = ds.load(engine, scratch, UNIVERSAL if converting else ds.TAG)
        group.share(None)
        return dict(told.get(ds.RUN_STATE, {}))
    finally:
        if group.world.local_rank == 0:
            shutil.rmtree(scratch, ignore_errors=True)


def _in_turns(group: Group, scratch: str, fetch: Callable[[], None]) -> None:
    """Rank 0 first, then one rank of each other host; what goes wrong anywhere is every rank's error."""
    for turn in (group.world.is_main, not group.world.is_main and group.world.local_rank == 0):
        fault = ""
        if turn:
            try:
                fetch()
            except (RetfoundError, OSError) as error:
                fault = str(error)
        if faults := [text for text in group.gather(fault) if text]:
            raise CheckpointError(f"the checkpoint cannot be loaded: {faults[0]}")


def _fetch(held: Commit, part: str, scratch: str) -> None:
    """Copy the files below `part` of a checkpoint into scratch, checked."""
    names = [name for name in held.files if name.startswith(part + "/")]
    with ThreadPoolExecutor(keeper.FILES_AT_ONCE) as pool:
        list(pool.map(lambda name: commit.fetch(held, name, os.path.join(scratch, name)), names))
    state_files.check_folder(os.path.join(scratch, part), storage.join(held.url, part))


def _fetch_universal(held: Commit, scratch: str, patience_s: float) -> None:
    """The converted state; converted and put beside the checkpoint where that has not been done."""
    beside = storage.join(held.url, UNIVERSAL)
    folder = os.path.join(scratch, UNIVERSAL)
    if commit.is_checkpoint(beside):
        try:
            _fetch_converted(commit.read_commit(beside), held, folder)
            return
        except RetfoundError as error:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"retfound: the converted state is made anew: {error}", file=sys.stderr)
    _fetch(held, ds.TAG, scratch)
    convert(scratch)
    storage.write_json(os.path.join(folder, SOURCE), _source(held))
    files = keeper.upload(folder, beside, patience_s)
    commit.write_commit(replace(held, url=beside, files=files))


def _source(held: Commit) -> dict[str, Any]:
    """What a converted state is made of, by content."""
    return {name: asdict(info) for name, info in held.files.items() if name.startswith(ds.TAG + "/")}


def _fetch_converted(done: Commit, held: Commit, folder: str) -> None:
    if SOURCE not in done.files or storage.read_json(storage.join(done.url, SOURCE)) != _source(held):
        raise CheckpointError(f"{done.url} was made of another checkpoint's state")
    with ThreadPoolExecutor(keeper.FILES_AT_ONCE) as pool:
        list(pool.map(lambda name: commit.fetch(done, name, os.path.join(folder, name)), done.files))
    state_files.check_folder(folder, done.url)
