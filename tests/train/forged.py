"""Files that run code when a full unpickler reads them; each would leave a mark."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ALLOWED = "an allowed class as a function"


class Calls:
    """What pickle turns into a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Fills:
    """An object that pickle fills by BUILD: its state is a call."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        return (OrderedDict, (), {"inner": self.inner})


class Storage:
    """A persistent id whose kind of storage is a call."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


def _zipped(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _legacy(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def _with_records(records: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name, data in records.items():
            file.writestr(f"archive/{name}", data)
    return out.getvalue()


def _by_storage(call: Calls) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", value.inner, "0", "cpu", 1) if isinstance(value, Storage) else None

    out = io.BytesIO()
    Pickler(out, 2).dump(Storage(call))
    return _with_records({"data.pkl": out.getvalue(), "version": b"3\n", "data/0": b"\0" * 4})


def _twice(call: Calls) -> bytes:
    """Two records of one name: who reads the other one is another reader."""
    good, bad = pickle.dumps({"module": {}}, 2), pickle.dumps(call, 2)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for data in (good, bad, good):
            file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", b"3\n")
    return out.getvalue()


def _numpy(call: Calls) -> bytes:
    import numpy as np

    return _zipped({"state": np.array([call], dtype=object)})


def _getattr(path: str) -> bytes:
    """By names that look harmless: torch.serialization.os.system, as GLOBAL reads it."""
    command = f"touch {path}".encode()
    pickled = b"\x80\x02ctorch.serialization\nos.system\nX" + len(command).to_bytes(4, "little") + command
    return _with_records({"data.pkl": pickled + b"\x85R.", "version": b"3\n"})


def forgeries(mark: Path) -> dict[str, bytes]:
    """By the name of the trick: a file that would create `mark`."""
    call = Calls(os.system, f"touch {mark}")
    tensor: Callable[[Any], Any] = torch.load.__globals__["torch"]._utils._rebuild_tensor_v2
    return {
        "call": _zipped({"module": {}, "client": call}),
        "legacy": _legacy({"module": call}),
        "bare pickle": pickle.dumps(call, 4),
        "protocol 4": _with_records({"data.pkl": pickle.dumps({"a": call}, 4), "version": b"3\n"}),
        "exec": _zipped([Calls(exec, f"open({str(mark)!r}, 'w')")]),
        "deep": _zipped({"optimizer_state_dict": {"state": {0: {"step": [((call,),)]}}}}),
        "state": _zipped(Fills(call)),
        "key": _zipped({Calls(os.system, f"touch {mark}"): 1}),
        "numpy": _numpy(call),
        "storage": _by_storage(call),
        "a tensor of a call": _zipped(Calls(tensor, call, 0, (1,), (1,), False, OrderedDict())),
        "two records": _twice(call),
        "dotted": _getattr(str(mark)),
        "program": _with_records(
            {"data.pkl": pickle.dumps(call, 2), "constants.pkl": b"", "version": b"3\n"}
        ),
    }
