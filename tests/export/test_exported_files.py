"""An export replaces its own files only."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import ConfigError
from retfound_dist.export.exported_files import card_url, check_output, write_card
from tests.evaluate.inputs import checkpoint

CARD = "---\nlicense: other\n---\n\n# x\n"


def test_own_files_are_replaced_and_files_of_others_are_not(tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    check_output(str(out), "onnx", force=False)
    out.write_bytes(b"12345")
    with pytest.raises(ConfigError, match="was not written by `retfound export`"):
        check_output(str(out), "onnx", force=False)
    check_output(str(out), "onnx", force=True)
    assert write_card(str(out), "onnx", CARD, 5) == f"{out}.md"
    check_output(str(out), "onnx", force=False)
    out.write_bytes(b"another file")
    with pytest.raises(ConfigError, match="was not written by"):
        check_output(str(out), "onnx", force=False)


def test_a_folder_has_its_card_inside(tmp_path: Path) -> None:
    out = tmp_path / "hub"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(ConfigError, match="was not written by"):
        check_output(str(out), "hf", force=False)
    write_card(str(out), "hf", CARD, 5)
    assert card_url(str(out), "hf") == str(out / "README.md")
    check_output(str(out), "hf", force=False)


def test_runs_classifiers_and_the_wrong_kind_of_target_are_never_replaced(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 7)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "classifier.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for out, kind, words in (
        (url, "hf", "is a checkpoint"),
        (str(tmp_path / "kept"), "hf", "is a kept classifier"),
        (str(tmp_path / "kept"), "onnx", "is a folder, but this format is a single file"),
        (str(tmp_path / "file"), "hf", "writes a folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_output(out, kind, force=True)
