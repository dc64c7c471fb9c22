"""Damaged files behind pages and exports: parts of metrics.json, pictures, probes and configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retfound_dist.cli import main
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from tests.evaluate.inputs import checkpoint, image_bytes


@pytest.mark.parametrize(
    "model", [{"decoder_heads": True}, {"decoder_width": 64}, {"decoder_heads": 5}, [], None]
)
def test_a_checkpoint_whose_config_is_no_model_is_one_line(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = checkpoint(tmp_path / "run", 10)
    tree = storage.read_json(storage.join(url, checkpoint_folder.COMMIT))
    tree["config"]["model"] = {**tree["config"]["model"], **model} if isinstance(model, dict) else model
    done = checkpoint_folder.read_commit(url)
    done.config.update(tree["config"])
    checkpoint_folder.write_commit(done)
    (tmp_path / "a.jpg").write_bytes(image_bytes(0, 0))
    assert main(["reconstruct", url, str(tmp_path / "a.jpg"), "--out", str(tmp_path / "o.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert url in line
    assert "config" in line
