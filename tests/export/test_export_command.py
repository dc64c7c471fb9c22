"""The command tells classifiers from checkpoints, and says what to give instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.export.export_command import export_command
from tests.evaluate.inputs import checkpoint
from tests.export.inputs import make_classifier


def test_a_checkpoint_has_no_graph_and_no_seed(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 7)
    for source in (url, str(tmp_path / "run")):
        with pytest.raises(
            WeightsError, match=r"not a classifier: fine-tune it first, with `retfound evaluate"
        ):
            export_command(source, "onnx", str(tmp_path / "x"))
    with pytest.raises(ConfigError, match="--seed 0 chooses a network of a classifier"):
        export_command(url, "timm", str(tmp_path / "x"), seed=0)
    assert export_command(url, "timm", str(tmp_path / "x.pth")) == 0


def test_a_classifier_has_no_decoder_to_export(tmp_path: Path) -> None:
    url = make_classifier(tmp_path / "kept")
    for kind in ("mae", "safetensors"):
        with pytest.raises(ConfigError, match=f"--format {kind} is for pretraining checkpoints.*choose onnx"):
            export_command(url, kind, str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_an_evaluation_without_a_classifier_says_why(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    for kind in ("timm", "onnx"):
        with pytest.raises(WeightsError, match="an evaluation without a classifier"):
            export_command(str(tmp_path), kind, str(tmp_path / "x"))


def test_foreign_files_stay_and_a_missing_package_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_classifier(tmp_path / "kept")
    (tmp_path / "x.onnx").write_text("of a person")
    with pytest.raises(ConfigError, match="was not written by `retfound export`"):
        export_command(url, "onnx", str(tmp_path / "x.onnx"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"--format onnx needs onnx.*or choose --format torchscript"):
        export_command(url, "onnx", str(tmp_path / "y.onnx"))
    assert (tmp_path / "x.onnx").read_text() == "of a person"
