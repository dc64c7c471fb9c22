"""Training rates that were measured: the files that `benchmarks/` leaves in `benchmarks/results/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
"""Where a clone of the repository keeps them; an installed package has none."""
_SIZES = {"small": "s", "base": "b", "large": "l", "huge": "h"}


@dataclass(frozen=True)
class Rate:
    """Images per second of one device."""

    images_per_s: float
    source: str
    """File and row."""


def read_results(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """(file's name, content) of every result there is; files that are no results are passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            tree = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(tree, dict) and isinstance(tree.get("rows"), list):
            found.append((path.name, tree))
    return found


def measured_rate(results: Iterable[tuple[str, Mapping[str, Any]]], device: str, model: str) -> Rate | None:
    """The best rate among training benchmarks of this model on one such device; None where there is none.

    A row matches when its benchmark is called `train...`, its machine names the device, its label the model
    (`vit_large_patch16`, `ViT-L`) and its unit is images/s.
    """
    name = device.split("-")[0].lower()
    size = model.split("_")[1] if "_" in model else model
    wanted = re.compile(rf"{re.escape(model)}|vit[-_ ]?({re.escape(size)}|{_SIZES.get(size, size)})\b", re.I)
    best: Rate | None = None
    for file, tree in results:
        if not str(tree.get("name", "")).startswith("train"):
            continue
        if name not in str(tree.get("machine", "")).replace(" ", "").lower():
            continue
        for row in tree["rows"]:
            label = f"{tree.get('model', '')} {row['label']}"
            if row.get("unit") != "images/s" or not wanted.search(label):
                continue
            if best is None or row["value"] > best.images_per_s:
                best = Rate(float(row["value"]), f"{file}, {row['label']!r}")
    return best
