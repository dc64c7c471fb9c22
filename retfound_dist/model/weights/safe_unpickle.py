"""Reads PyTorch's files without running code from them.

PyTorch's restricted unpickler accepts tensors and plain values. Training code saves its arguments too: paths,
numpy scalars, configs of other packages. Each such object is replaced by an empty placeholder. Neither its
class nor its function is ever called.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import torch

from retfound_dist.errors import WeightsError

CODE_MODULES = {
    "builtins", "code", "commands", "ctypes", "functools", "importlib", "marshal", "nt", "operator", "os",
    "pickle", "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys", "webbrowser",
}  # fmt: skip
"""Modules that attacks use and saved arguments do not. A file that refers to one is refused."""
NETWORK_CLASSES = re.compile(r"^(torch\.nn\.|torchvision\.|timm\.(models|layers)\.)")
"""Classes of pickled networks."""
# The message of PyTorch 2.15. For files older than its zip format only this message names the object.
_GLOBAL_NAME = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
# For old files PyTorch names only one unknown object in each round.
MAX_ROUNDS = 50


class Placeholder:
    """Replaces an object that is neither a tensor nor a plain value."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignores all arguments."""

    def __setstate__(self, _: Any) -> None:
        """Ignores the state."""


def read_pickle(path: str, url: str) -> Any:
    """The content of a .pth, .pt, .bin or .ckpt file; WeightsError if it is not a plain tree of tensors."""
    names: list[str] = []
    # A name is allowed only after `refuse_code` has checked it, and then stands for a placeholder.
    for _ in range(MAX_ROUNDS):
        try:
            # argparse.Namespace is harmless: it only holds values. MAE's and RETFound's files contain one.
            allowed: list[Any] = [argparse.Namespace, *((_placeholder(name), name) for name in names)]
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")
                tree = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            unknown = [name for name in _unknown_names(path, str(error)) if name not in names]
            refuse_code(unknown, url)
            if not unknown:
                raise unreadable_file(url, _failure_reason(path)) from error
            names += unknown
        except (EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable_file(url, first_line(error)) from error
        else:
            if isinstance(tree, Placeholder):
                raise WeightsError(f"{url} holds a {names[0]}, not named tensors: save its state_dict()")
            return tree
    raise unreadable_file(url, "too many kinds of objects")


def _placeholder(name: str) -> type:
    """The placeholder for a class; a plain mapping if it is filled like a mapping (`AttributeDict`)."""
    return OrderedDict if name.lower().endswith("dict") else Placeholder


def _unknown_names(path: str, message: str) -> list[str]:
    """Names in the file that the unpickler does not know: all of them, or only the first in old files."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return sorted(names) or _GLOBAL_NAME.findall(message)
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        return [name if "." in name else f"builtins.{name}" for name in _GLOBAL_NAME.findall(message)]


def _failure_reason(path: str) -> str:
    """The probable reason why PyTorch's restricted unpickler failed."""
    with suppress(OSError, zipfile.BadZipFile, StopIteration), zipfile.ZipFile(path) as file:
        name = next(name for name in file.namelist() if name.endswith("/data.pkl"))
        # A pickle of protocol 2 or later begins with the opcode PROTO, 0x80, and its number.
        mark, protocol = file.read(name)[:2]
        if mark == 0x80 and protocol > 2:
            return f"pickle protocol {protocol}: save it with torch.save's default protocol, which is 2"
    return "it is not a pickle of plain tensors"


def refuse_code(names: list[str], url: str) -> None:
    """WeightsError if one of these names is a pickled network or could run code."""
    for name in names:
        if NETWORK_CLASSES.match(name):
            raise WeightsError(
                f"{url} holds a whole pickled network ({name}), which cannot be read safely: "
                "save its state_dict() with the project that defines it"
            )
        # A placeholder would run nothing either. But such a file was made to attack, or is damaged.
        if name.split(".")[0] in CODE_MODULES:
            raise unreadable_file(url, f"it refers to {name}")


def unreadable_file(url: str, reason: str) -> WeightsError:
    """The error for a file that is not a weights file."""
    return WeightsError(
        f"{url} is not a weights file that can be read safely ({reason}); "
        "give a checkpoint folder, a .safetensors or a .pth of tensors"
    )


def first_line(error: Exception) -> str:
    """The beginning of an error's message: those of PyTorch and safetensors can have many lines."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
