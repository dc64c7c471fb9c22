"""GOALS: the diagnosis and the layer mask stay with their scan."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from shards.pack import pack
from tests.shards.published_layouts import list_source, sources_config, write_goals


def test_goals_keeps_diagnosis_and_layers_with_the_sample(tmp_path: Path) -> None:
    root = write_goals(tmp_path / "GOALS")
    found = list_source("goals", root)
    assert Counter((s.split, s.label) for s in found.scans) == {
        ("train", "glaucoma"): 2,
        ("train", "normal"): 1,
        ("test", None): 2,
    }
    assert "5 images found, 200 published: test 2 of 100, train 3 of 100" in found.notes
    manifest = pack(sources_config(tmp_path, [{"kind": "goals", "path": str(root)}]))
    fields = [json.loads(data) for data in _members(manifest.url, ".json")]
    masks = [base64.b64decode(f["layer_mask_png"]) for f in fields if "layer_mask_png" in f]
    assert [np.unique(np.asarray(Image.open(io.BytesIO(m)))).tolist() for m in masks] == [
        [0, 80, 160, 255]
    ] * 3


def _members(url: str, end: str) -> list[bytes]:
    import tarfile

    found = []
    for path in sorted(Path(url).glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if m.name.endswith(end)]  # type: ignore[union-attr]
    return found
