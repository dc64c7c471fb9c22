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
    """The best rate that `make bench-train` measured of this model on one such device; None: it did not.

    A row matches when its benchmark is called `train`, its machine names the device, its command the
    model (or none: the default one on a GPU), its label begins with `ours` and its unit is images/s.
    """
    name = device.split("-")[0].lower()
    best: Rate | None = None
    for file, tree in results:
        machine = str(tree.get("machine", "")).replace(" ", "").lower()
        if tree.get("name") != "train" or name not in machine or _model(tree) != model:
            continue
        for row in tree["rows"]:
            if row.get("unit") != "images/s" or not str(row["label"]).startswith("ours"):
                continue
            if best is None or row["value"] > best.images_per_s:
                best = Rate(float(row["value"]), f"{file}, {row['label']!r}")
    return best


def _model(tree: Mapping[str, Any]) -> str:
    said = re.search(r"--model[ =](\S+)", str(tree.get("command", "")))
    return said[1] if said else "vit_large_patch16"
