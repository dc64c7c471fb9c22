"""What a command says of a labelled set before it works on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.commands.set_messages import load_labelled, show_pretraining_overlap
from retfound_dist.model.backbones.opening import random_backbone
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import class_folders


def test_parts_classes_and_what_was_left_out_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = class_folders(tmp_path / "set", each=10)
    (folder / "MH" / "MH_3.jpg").write_bytes(b"no image")
    (folder / "notes.pdf").write_bytes(b"x")
    with ProgressDisplay() as show:
        data = load_labelled(EvalData(path=str(folder)), random_backbone("vit_demo_patch14", 28), show)
    shown = "".join(capsys.readouterr())
    parts = ", ".join(f"{name} {len(part)}" for name, part in data.parts.items())
    assert f"{folder}: 3 classes; {parts} images; split " in shown
    assert "left out: MH/MH_3.jpg" in shown
    assert "notes.pdf" in shown


def test_seen_images_are_a_warning_and_unknown_ones_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    of = {"val": 6, "test": 8}
    with ProgressDisplay() as show:
        show_pretraining_overlap(
            {"how": "unknown: no manifest", "val": None, "test": None, "of": of}, show, "a: "
        )
        show_pretraining_overlap({"how": "by pixels", "val": 0, "test": 3, "of": of}, show, "b: ")
        show_pretraining_overlap({"how": "by pixels", "val": 0, "test": 0, "of": of}, show, "c: ")
    shown = "".join(capsys.readouterr())
    assert "a: whether these weights were pretrained on images of this set is unknown: no manifest" in shown
    assert "warning: b: these weights were pretrained on images of this set" in shown
    assert "c: " not in shown
