"""Training rates that were measured: the files that `benchmarks/` leaves in `benchmarks/results/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from retfound_dist.errors import RecordError, StorageError
from retfound_dist.records import json_reader

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
"""Where a clone of the repository keeps them; an installed package has none."""


@dataclass(frozen=True)
class Rate:
    """Images per second of one device."""

    images_per_s: float
    source: str
    """File and row."""


@with_config(ConfigDict(extra="allow"))
class ResultRow(TypedDict):
    """A row of a result, as far as a plan counts with it."""

    label: str
    value: float
    unit: str


@with_config(ConfigDict(extra="allow"))
class Result(TypedDict):
    """A benchmark's result, as far as a plan counts with it."""

    name: str
    rows: list[ResultRow]
    machine: NotRequired[str]
    command: NotRequired[str]


def read_results(folder: Path = RESULTS) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """(file's name, content) of every result there is, and a line on each file that is left out."""
    results, faults = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            results.append((path.name, dict(json_reader.read(str(path), Result, "it is left out"))))
        except (StorageError, RecordError) as error:
            faults.append(str(error))
    return results, faults


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
    match = re.search(r"--model[ =](\S+)", str(tree.get("command", "")))
    return match[1] if match else "vit_large_patch16"
