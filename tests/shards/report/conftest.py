"""A packed set with images that are left out of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.pack import pack
from tests.shards.pack_inputs import pack_config, write_classes


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    images = write_classes(tmp_path / "images", {"A": 9, "B": 3})
    shutil.copy(images / "A" / "a_001.jpg", images / "B" / "again.jpg")
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(images / "A" / "empty.png")
    (images / "A" / "broken.jpg").write_text("hi")
    split = {"fractions": [0.6, 0.2, 0.2]}
    return Path(pack(pack_config(images, tmp_path / "out", split=split)).url)
