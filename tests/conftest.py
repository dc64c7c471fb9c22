"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real OCT images: $RETFOUND_TEST_DATA, or `../shared/data` beside the repository."""
    folder = Path(os.environ.get("RETFOUND_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "octdl").is_dir():
        pytest.skip(f"no real images in {folder}: set RETFOUND_TEST_DATA to the folder that holds octdl/")
    return folder
