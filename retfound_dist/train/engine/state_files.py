"""Reads the files of a training state safely: a forged file cannot run code.

A `.pt` file is a pickle, which may name any function to be called with any arguments. DeepSpeed (0.19.8)
reads its own with PyTorch's full unpickler, which calls them. Two things prevent that here:

- `check_file` inspects every file before it is loaded.
- Within `restricted_unpickling` every `torch.load`, DeepSpeed's too, uses PyTorch's restricted unpickler. It
  builds only tensors, plain values and the few classes below.
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

_DEEPSPEED_CLASSES = (
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
)
"""DeepSpeed's own classes in its files: a number that scales the loss, the stage, where a tensor begins."""
_STORAGE_KINDS = ("Float", "BFloat16", "Half", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = ("float32", "bfloat16", "float16", "float64", "int64", "int32", "uint8", "bool")
_ALLOWED_NAMES = (
    {f"{module}.{name}" for module, name in _DEEPSPEED_CLASSES}
    | {f"torch.{kind}Storage" for kind in _STORAGE_KINDS}
    | {f"torch.{kind}" for kind in _DTYPES}
    | {"torch._utils._rebuild_tensor_v2", "torch.Size", "torch.device", "collections.OrderedDict"}
)
"""Every name that a training state may refer to."""
_FORBIDDEN_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "PERSID"}
"""Pickle instructions that refer to names in other ways. PyTorch writes none of them."""
_ALWAYS_RESTRICTED, _NEVER_RESTRICTED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def check_file(path: str | os.PathLike[str], name: str) -> None:
    """CheckpointError unless a file holds only tensors and plain values; none of its code is run.

    `name`: of the file in the message.
    """
    try:
        # torch's own reader, not `zipfile`: in a file with two records of one name, each may choose another
        # record.
        reader = torch._C.PyTorchFileReader(os.fspath(path))
        records = reader.get_all_records()
        pickle_bytes = reader.get_record("data.pkl") if "data.pkl" in records else b""
    except RuntimeError as error:  # PyTorch's old formats: a bare pickle, a tar
        raise _unsafe_file_error(name, "it is not a zip file as torch.save writes it") from error
    if not pickle_bytes or "constants.pkl" in records:
        raise _unsafe_file_error(
            name, "it holds a program (TorchScript), not tensors" if records else "it is empty"
        )
    if len(set(records)) < len(records):
        raise _unsafe_file_error(name, "two of its records have one name")
    try:
        unexpected = _unexpected_names(pickle_bytes)
    except ValueError as error:
        raise _unsafe_file_error(name, "its pickle is damaged") from error
    if unexpected:
        raise _unsafe_file_error(
            name, f"it refers to {', '.join(unexpected[:3])}, which DeepSpeed never writes"
        )


def check_folder(folder: str | os.PathLike[str], name: str) -> None:
    """`check_file` for every .pt file below a folder; `name`: of the folder in the message."""
    for path in sorted(Path(folder).rglob("*.pt")):
        check_file(path, f"{name}/{path.relative_to(folder).as_posix()}")


def _unexpected_names(pickle_bytes: bytes) -> list[str]:
    """Names in a pickle that a training state does not have, in order of appearance."""
    names: dict[str, None] = {}
    # `genops` lists the instructions and executes none.
    for code, argument, _ in pickletools.genops(pickle_bytes):
        if code.name == "GLOBAL":
            names[str(argument).replace(" ", ".")] = None
        elif code.name in _FORBIDDEN_OPCODES:
            names[f"something by {code.name}"] = None
    return [name for name in names if name not in _ALLOWED_NAMES]


def _unsafe_file_error(name: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{name} is no training state that can be read safely: {reason}. Nothing of it was run. Use another "
        "checkpoint, and ask who can write there"
    )


def deepspeed_classes() -> list[Any]:
    """DeepSpeed's own classes in its files: `LossScaler`, `ZeroStageEnum` and `fragment_address`."""
    prepare_import()
    return [getattr(import_module(module), name) for module, name in _DEEPSPEED_CLASSES]


@contextmanager
def unreadable_state(folder: str, name: str) -> Iterator[None]:
    """Check a folder's files; within, CheckpointError where a part of the state is missing or wrong."""
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
    """Within it every torch.load builds only tensors, plain values and DeepSpeed's three classes.

    Change of DeepSpeed 0.19.8, which calls torch.load(weights_only=False) on its states. Without it a forged
    state that `check_file` misses runs code.
    """
    saved = {
        name: os.environ.pop(name) for name in (_ALWAYS_RESTRICTED, _NEVER_RESTRICTED) if name in os.environ
    }
    # PyTorch's own switch, which overrides an argument `weights_only=False`. It is read at each call.
    os.environ[_ALWAYS_RESTRICTED] = "1"
    try:
        with torch.serialization.safe_globals(deepspeed_classes()):
            yield
    finally:
        del os.environ[_ALWAYS_RESTRICTED]
        os.environ.update(saved)


def read(path: str | os.PathLike[str], name: str = "", mmap: bool = False) -> Any:
    """The content of a file, which is checked first, in host memory."""
    check_file(path, name or os.fspath(path))
    with restricted_unpickling():
        return torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
