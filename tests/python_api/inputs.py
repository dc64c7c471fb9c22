"""An evaluation with two seeds and a folder of images, shared by the tests of the Python functions."""

from __future__ import annotations

from pathlib import Path

from tests.evaluate.inputs import checkpoint, class_folders, list_patients
from tests.evaluate.made import evaluated


def make_evaluation(root: Path) -> Path:
    """`root/run` (a checkpoint at step 7), `root/set` (90 images) and `root/out` (its evaluation).

    Images of one shade, so that there are mistakes.
    """
    class_folders(root / "set", each=30, shade=8)
    list_patients(root / "set")
    return evaluated(root, checkpoint(root / "run", 7), "seeds=[0, 1]", "probe.enabled=false")
