"""Reads PyTorch's files without running code from them.

PyTorch's restricted unpickler takes tensors and plain values. Training code saves its arguments beside them:
paths, numpy's scalars, configs of other packages. Each such object is replaced by one that holds nothing and
does nothing. Neither its class nor its function is ever called.
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

RUNS_CODE = {
    "builtins", "code", "commands", "ctypes", "functools", "importlib", "marshal", "nt", "operator", "os",
    "pickle", "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys", "webbrowser",
}  # fmt: skip
"""Modules that no saved argument comes from, and an attack does: a file that names one is refused."""
WHOLE = re.compile(r"^(torch\.nn\.|torchvision\.|timm\.(models|layers)\.)")
"""Classes of whole pickled networks."""
# PyTorch's words (2.15). For files older than its zip format it names an object in no other way.
_NAMED = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
# Rounds. Of an old file PyTorch names one unknown object in each.
_MOST = 50


class StandIn:
    """Replaces an object that is no tensor."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignores all arguments."""

    def __setstate__(self, _: Any) -> None:
        """Ignores the state."""


def read_pickle(path: str, url: str) -> Any:
    """What a .pth, .pt, .bin or .ckpt holds; WeightsError where it holds no plain tree of tensors."""
    names: list[str] = []
    # Names are allowed only after `refuse_code` has seen them, and then mean stand-ins.
    for _ in range(_MOST):
        try:
            # argparse.Namespace itself, for it is only a bag of values: MAE's and RETFound's files hold
            # one.
            allowed: list[Any] = [argparse.Namespace, *((_stand_in(name), name) for name in names)]
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")
                tree = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            unknown = [name for name in _unknown(path, str(error)) if name not in names]
            refuse_code(unknown, url)
            if not unknown:
                raise unreadable(url, _why(path)) from error
            names += unknown
        except (EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(url, (str(error).splitlines() or [type(error).__name__])[0][:120]) from error
        else:
            if isinstance(tree, StandIn):
                raise WeightsError(f"{url} holds a {names[0]}, not named tensors: save its state_dict()")
            return tree
    raise unreadable(url, "too many kinds of objects")


def _stand_in(name: str) -> type:
    """The stand-in for a class; a plain mapping for one that is filled like a mapping (`AttributeDict`)."""
    return OrderedDict if name.lower().endswith("dict") else StandIn


def _unknown(path: str, message: str) -> list[str]:
    """The names in the file that the unpickler does not know: all of them, or in old files the first."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or _NAMED.findall(message)
    except (RuntimeError, ValueError, pickle.UnpicklingError):
        return [name if "." in name else f"builtins.{name}" for name in _NAMED.findall(message)]


def _why(path: str) -> str:
    """A guess at why PyTorch's restricted unpickler failed."""
    with suppress(OSError, zipfile.BadZipFile, StopIteration), zipfile.ZipFile(path) as file:
        name = next(name for name in file.namelist() if name.endswith("/data.pkl"))
        # A pickle of protocol 2 or later begins with the opcode PROTO, 0x80, and its number.
        mark, protocol = file.read(name)[:2]
        if mark == 0x80 and protocol > 2:
            return f"pickle protocol {protocol}: save it with torch.save's own, which is 2"
    return "no pickle of plain tensors"


def refuse_code(names: list[str], url: str) -> None:
    """WeightsError where one of these names is a whole network or could run something."""
    for name in names:
        if WHOLE.match(name):
            raise WeightsError(
                f"{url} holds a whole pickled network ({name}), which cannot be read safely: "
                "save its state_dict() where its code is"
            )
        # A stand-in would run nothing either. But a file that names them was made to attack, or is broken.
        if name.split(".")[0] in RUNS_CODE:
            raise unreadable(url, f"it refers to {name}")


def unreadable(url: str, reason: str) -> WeightsError:
    """The error for a file that is no weights file."""
    return WeightsError(
        f"{url} is not a weights file that can be read safely ({reason}); "
        "give a checkpoint folder, a .safetensors or a .pth of tensors"
    )
