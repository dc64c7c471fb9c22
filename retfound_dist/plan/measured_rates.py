"""Measured training rates, from the result files of `benchmarks/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from retfound_dist.errors import RecordError, StorageError
from retfound_dist.io import storage
from retfound_dist.plan.cluster import is_same_model
from retfound_dist.records import json_reader

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
"""The result files of a clone of the repository. An installed package has none."""
MEASURED = "measured.json"
"""File beside the runs in which `retfound doctor` records what it measures."""


@dataclass(frozen=True)
class MeasuredRate:
    """A measured rate of one device."""

    images_per_s: float
    source: str
    """File and row."""


@with_config(ConfigDict(extra="allow"))
class ResultRow(TypedDict):
    """The fields of a result's row that a plan uses."""

    label: str
    value: float
    unit: str


@with_config(ConfigDict(extra="allow"))
class Result(TypedDict):
    """The fields of a benchmark's result that a plan uses."""

    name: str
    rows: list[ResultRow]
    machine: NotRequired[str]
    command: NotRequired[str]


def read_results(folder: Path = RESULTS) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """(file name, content) of every result, and a line about each file that is left out."""
    results, faults = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            results.append((path.name, dict(json_reader.read(str(path), Result, "it is left out"))))
        except (StorageError, RecordError) as error:
            faults.append(str(error))
    return results, faults


@with_config(ConfigDict(extra="allow"))
class MeasuredFile(TypedDict):
    """`measured.json`."""

    results: list[Result]
    """In order of time."""


def measured_url(run_url: str) -> str:
    """Where measurements for a run are: beside it, so that all runs of a folder share them."""
    folder, slash, _ = run_url.rstrip("/").rpartition("/")
    return storage.join(folder or slash or ".", MEASURED)


def read_measured(run_url: str) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """As `read_results`, of the doctor's file beside a run; both empty where there is none."""
    where = measured_url(run_url)
    try:
        if not storage.exists(where):
            return [], []
        results = json_reader.read(where, MeasuredFile, "it is left out")["results"]
    except (StorageError, RecordError) as error:
        return [], [str(error)]
    return [(f"{where} of {result.get('date', 'unknown date')}", dict(result)) for result in results], []


def measured_rate(
    results: Iterable[tuple[str, Mapping[str, Any]]], device: str, model: str
) -> MeasuredRate | None:
    """The best rate that was measured for this model on such a device, by `make bench-train` or the doctor.

    None where there is none.

    A row matches if its benchmark is `train`, its machine names the device, its command names the model (or
    none, which is the default model on a GPU), its label begins with `ours` and its unit is images/s.
    """
    best: MeasuredRate | None = None
    for file, tree in results:
        machine = str(tree.get("machine", ""))
        if tree.get("name") != "train" or not is_same_model(machine, device) or _model(tree) != model:
            continue
        for row in tree["rows"]:
            if row.get("unit") != "images/s" or not str(row["label"]).startswith("ours"):
                continue
            if best is None or row["value"] > best.images_per_s:
                best = MeasuredRate(float(row["value"]), f"{file}, {row['label']!r}")
    return best


def _model(tree: Mapping[str, Any]) -> str:
    match = re.search(r"--model[ =](\S+)", str(tree.get("command", "")))
    return match[1] if match else "vit_large_patch16"
