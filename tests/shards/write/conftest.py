"""A sound set, and a copy of it for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shards.pack import pack
from tests.shards.pack_inputs import pack_config, write_classes


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound set and the images it was packed from."""
    root = tmp_path_factory.mktemp("packed")
    pack(pack_config(write_classes(root / "one", {"A": 12, "B": 6}), root / "out"))
    return root


@pytest.fixture
def out(packed: Path, tmp_path: Path) -> Path:
    """A copy of the set that can be spoilt."""
    return Path(shutil.copytree(packed / "out", tmp_path / "out", copy_function=shutil.copyfile))
