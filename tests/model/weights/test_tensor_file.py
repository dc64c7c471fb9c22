from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from retfound_dist.errors import WeightsError
from retfound_dist.io import storage
from retfound_dist.model.weights.tensor_file import read_tensor_file


def test_tensors_config_and_sha256_of_both_formats(tmp_path: Path) -> None:
    config = {"model": {"name": "x"}}
    safe, pickled = tmp_path / "w.safetensors", tmp_path / "w.pth"
    safetensors.torch.save_file({"a": torch.ones(2)}, safe, {"config": json.dumps(config)})
    torch.save({"model": {"a": torch.ones(2)}, "config": config}, pickled)
    first, second = read_tensor_file(str(safe)), read_tensor_file(str(pickled))
    assert first.tree["a"].tolist() == second.tree["model"]["a"].tolist() == [1, 1]
    assert first.config == second.config == config
    assert first.sha256 == storage.file_info(str(safe)).sha256
    torch.save({"a": torch.ones(2), "config": {"other": 1}}, pickled)
    assert read_tensor_file(str(pickled)).config == {}


def test_a_remote_file_is_read_and_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2)}, path)
    storage.write_bytes("memory://tensors/w.pth", path.read_bytes())
    assert read_tensor_file("memory://tensors/w.pth").tree["a"].shape == (2,)
    with pytest.raises(WeightsError, match="there are no weights at"):
        read_tensor_file(str(tmp_path / "none.pth"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        read_tensor_file(str(tmp_path / "cut.safetensors"))
