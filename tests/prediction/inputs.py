"""A small kept classifier and images for the tests of `retfound predict`."""

from __future__ import annotations

import csv
from pathlib import Path

from retfound_dist.cli import main
from tests.evaluate.inputs import checkpoint, class_folders, list_patients
from tests.evaluate.made import evaluated


def small_evaluation(root: Path, seeds: str = "[0, 1]") -> Path:
    """`root/set`, and the evaluation of two seeds on it. Images of one shade, so that there are mistakes."""
    class_folders(root / "set", each=30, shade=8)
    list_patients(root / "set")
    return evaluated(root, checkpoint(root / "run", 7), f"seeds={seeds}")


def predict(*arguments: str | Path) -> int:
    """`retfound predict` in this process; its exit code."""
    return main(["predict", *map(str, arguments)])


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV by key, in their order."""
    with path.open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}
