"""Reads DeepSpeed's training state without running anything of it.

A `.pt` file is a pickle, which may name any function to be called with any arguments. DeepSpeed (0.19.8)
reads its own with PyTorch's full unpickler. Here two things keep a forged file from running code:

- `check_file` looks through every file before DeepSpeed sees it.
- `restricted_unpickling` has every `torch.load`, DeepSpeed's too, go through PyTorch's restricted unpickler.
  That one calls nothing but what builds tensors and the few classes below.
"""

from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from retfound_dist.errors import CheckpointError
from retfound_dist.train.engine.deepspeed_config import prepare_import

_OWN = (
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
)
"""DeepSpeed's own classes in its files: a number that scales the loss, the stage, where a tensor begins."""
_STORAGES = ("Float", "BFloat16", "Half", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TYPES = ("float32", "bfloat16", "float16", "float64", "int64", "int32", "uint8", "bool")
_ALLOWED = (
    {f"{module}.{name}" for module, name in _OWN}
    | {f"torch.{kind}Storage" for kind in _STORAGES}
    | {f"torch.{kind}" for kind in _TYPES}
    | {"torch._utils._rebuild_tensor_v2", "torch.Size", "torch.device", "collections.OrderedDict"}
)
"""Every name that a training state may refer to."""
_OTHER_WAYS = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "PERSID"}
"""Instructions of a pickle that refer to names in other ways; PyTorch writes none of them."""
_FORCED, _NEVER = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def check_file(path: str | os.PathLike[str], name: str) -> None:
    """CheckpointError where a file could be anything but tensors and plain values; nothing of it is run.

    `name` is what the file is called in the message.
    """
    try:
        # torch's own reader, not `zipfile`: of a file with two records of one name each could see another
        # one.
        reader = torch._C.PyTorchFileReader(os.fspath(path))
        records = reader.get_all_records()
        pickled = reader.get_record("data.pkl") if "data.pkl" in records else b""
    except RuntimeError as error:  # PyTorch's old formats: a bare pickle, a tar
        raise _refused(name, "it is not a zip file as torch.save writes it") from error
    if not pickled or "constants.pkl" in records:
        raise _refused(name, "it holds a program (TorchScript), not tensors" if records else "it is empty")
    if len(set(records)) < len(records):
        raise _refused(name, "two of its records have one name")
    try:
        strange = _strange_names(pickled)
    except ValueError as error:
        raise _refused(name, "its pickle is damaged") from error
    if strange:
        raise _refused(name, f"it refers to {', '.join(strange[:3])}, which DeepSpeed never writes")


def check_folder(folder: str | os.PathLike[str], called: str) -> None:
    """`check_file` every .pt file below a folder; `called` is the folder's name in the message."""
    for path in sorted(Path(folder).rglob("*.pt")):
        check_file(path, f"{called}/{path.relative_to(folder).as_posix()}")


def _strange_names(pickled: bytes) -> list[str]:
    """Names that a pickle refers to and a training state does not, in order of appearance."""
    names: dict[str, None] = {}
    # `genops` lists the instructions and carries out none.
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "GLOBAL":
            names[str(argument).replace(" ", ".")] = None
        elif code.name in _OTHER_WAYS:
            names[f"something by {code.name}"] = None
    return [name for name in names if name not in _ALLOWED]


def _refused(name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{name} is no training state that can be read safely: {why}. Nothing of it was run. Use another "
        "checkpoint, and ask who can write there"
    )


def deepspeed_classes() -> list[Any]:
    """DeepSpeed's own classes in its files: `LossScaler`, `ZeroStageEnum` and `fragment_address`."""
    prepare_import()
    return [getattr(import_module(module), name) for module, name in _OWN]


@contextmanager
def unreadable_state(folder: str, name: str) -> Iterator[None]:
    """Check a folder's files; within, CheckpointError where they hold not what a training state has."""
    check_folder(folder, name)
    try:
        yield
    except (
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        IndexError,
    ) as error:
        first_line = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"the training state cannot be loaded ({type(error).__name__}: {first_line}): "
            "use another checkpoint"
        ) from error


@contextmanager
def restricted_unpickling() -> Iterator[None]:
    """Within it every torch.load, whoever calls it, builds only tensors, plain values and `_OWN`.

    Patch of DeepSpeed 0.19.8, which calls torch.load(weights_only=False) on its states. Without it a forged
    state that `check_file` misses runs code.
    """
    before = {name: os.environ.pop(name) for name in (_FORCED, _NEVER) if name in os.environ}
    # By PyTorch's own switch, which wins over an argument `weights_only=False`. It is read at each call.
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals(deepspeed_classes()):
            yield
    finally:
        del os.environ[_FORCED]
        os.environ.update(before)


def read(path: str | os.PathLike[str], name: str = "", mmap: bool = False) -> Any:
    """What a checked file holds, in host memory."""
    check_file(path, name or os.fspath(path))
    with restricted_unpickling():
        return torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
