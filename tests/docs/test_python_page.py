"""docs/python.md and the notebook run exactly as they are shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest

import retfound_dist
from retfound_dist.cli import main
from retfound_dist.model.backbones.opening import random_backbone
from tests import ROOT
from tests.docs.pages import DOCS
from tests.evaluate.inputs import checkpoint, class_folders
from tests.export.inputs import make_classifier

PAGE = (DOCS / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
NOTEBOOK = DOCS / "notebooks" / "use_a_classifier.ipynb"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: a run, an evaluation with its classifier, and a folder of images."""
    root = tmp_path_factory.mktemp("work")
    class_folders(root / "scans", each=3)
    checkpoint(root / "runs" / "vitl_oct", 7)
    make_classifier(root / "runs" / "octid" / "classifier", random_backbone("vit_demo_patch14", 56))
    return root


def run(block: str) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    exec(block, variables)
    return variables


def test_the_export_commands_and_every_block_run_as_they_are_shown(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    commands = re.findall(r"^    retfound (export .*)$", PAGE, re.M)
    assert len(commands) == 4
    for command in commands:
        assert main(command.split()) == 0, command
    predicted, embedded, in_batches, on_device, in_network, exported = map(run, BLOCKS)
    assert predicted["probabilities"].shape == (9, 3)
    np.testing.assert_allclose(predicted["probabilities"].sum(1), 1, atol=1e-6)
    assert embedded["features"].shape == (9, embedded["encoder"].width)
    assert in_batches["features"].shape == embedded["features"].shape
    assert on_device["probabilities"].shape == (8, 3)
    assert in_network["logits"].requires_grad
    np.testing.assert_allclose(exported["probabilities"], predicted["probabilities"], atol=1e-4)
    assert "9 images, 0 unreadable" in capsys.readouterr().out


def test_the_page_names_every_public_function(work: Path) -> None:
    functions = [name for name in retfound_dist.__all__ if name.islower()]
    assert [name for name in functions if f"`{name}(" not in PAGE] == []


def test_the_notebook_runs_from_the_first_cell_to_the_last(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(work)}}).execute()
    kinds = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", ())
    ]
    assert kinds.count("image/png") == 2
    text = str(notebook.cells)
    assert all(name in text for name in ("CSR", "MH", "NORMAL"))
