"""Files of others run nothing here: arguments beside the tensors are passed over, code is refused."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retfound_dist.errors import WeightsError
from retfound_dist.model.weights.safe_unpickle import read_pickle

TENSOR = torch.arange(3.0)


class OfNoPackage:
    """A class that the reader cannot import, and whose making would be seen."""

    made = 0

    def __init__(self) -> None:
        self.lr = 1e-3

    def __setstate__(self, state: Any) -> None:
        type(self).made += 1


class AttributeDict(dict[str, int]):
    """As lightning keeps hyper-parameters."""


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the file ran code')",))


BESIDE = {
    "paths": argparse.Namespace(output=pathlib.PosixPath("/x"), windows=pathlib.PureWindowsPath("C:/x")),
    "numpy": {"auc": np.float64(0.9), "kind": np.dtype("f4"), "table": np.arange(4)},
    "time": {"began": datetime.datetime(2026, 1, 1), "all": types.SimpleNamespace(a=1)},
    "attributes": AttributeDict(lr=1),
    "own class": OfNoPackage(),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BESIDE)
def test_tensors_are_read_whatever_stands_beside_them(name: str, legacy: bool, tmp_path: Path) -> None:
    path, before = str(tmp_path / "w.pth"), OfNoPackage.made
    torch.save(
        {"model": {"a": TENSOR}, "args": BESIDE[name]}, path, _use_new_zipfile_serialization=not legacy
    )
    assert torch.equal(read_pickle(path, path)["model"]["a"], TENSOR)
    assert OfNoPackage.made == before


def test_a_class_that_is_not_installed_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("their_code")
    module.Settings = type("Settings", (), {"__module__": "their_code"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_code", module)
    torch.save({"model": {"a": TENSOR}, "args": module.Settings()}, tmp_path / "w.pth")  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "their_code")
    assert torch.equal(read_pickle(str(tmp_path / "w.pth"), "w.pth")["model"]["a"], TENSOR)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_would_run_code_is_refused_by_name(legacy: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "w.pth")
    torch.save({"model": {"a": TENSOR}, "args": Harmful()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"read safely \(it refers to builtins\.exec\)"):
        read_pickle(path, path)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (torch.nn.Linear(2, 2), r"whole pickled network \(torch\.nn\.modules\.linear\.Linear\).*state_dict"),
        ({"model": torch.nn.Linear(2, 2)}, r"whole pickled network"),
        (OfNoPackage(), r"holds a .*OfNoPackage, not named tensors: save its state_dict"),
    ],
    ids=["module", "module in a dictionary", "object"],
)
def test_whole_objects_are_refused_with_what_to_save_instead(tree: Any, said: str, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=said):
        read_pickle(str(tmp_path / "w.pth"), "w.pth")


def test_another_pickle_protocol_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"a": TENSOR}}, tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(WeightsError, match=r"pickle protocol 4: save it with torch\.save's default protocol"):
        read_pickle(str(tmp_path / "w.pth"), "w.pth")
