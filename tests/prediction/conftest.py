"""One kept classifier for all tests of `retfound predict`."""

from pathlib import Path

import pytest

from tests.prediction.inputs import small_evaluation


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a labelled set (`set`) and its evaluation (`out`)."""
    root = tmp_path_factory.mktemp("kept_classifier")
    small_evaluation(root)
    return root
