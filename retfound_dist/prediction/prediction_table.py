"""The table of predictions: a row for each image, as .csv or .parquet.

    key, patient, eye, volume, slice, predicted, p_<CLASS>..., entropy, seed_spread, reason

`prediction_columns.py` makes the columns between `slice` and `reason`, which depend on what is predicted.

Shapes: S seeds, N images, C classes, labels or grades.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.io import output_files, storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.prediction.prediction_run import ImagePredictions
from retfound_dist.runtime.optional_packages import import_parquet

ENDINGS = (".csv", ".parquet")
IDENTITY_COLUMNS = ("key", "patient", "eye", "volume", "slice")
REASON_COLUMN = "reason"
"""Columns before and after those of `PredictionTable.columns`."""
COMMAND = "predict"
_HEADER_START = ",".join([*IDENTITY_COLUMNS, "predicted"]).encode()
Column = Sequence[str] | NDArray[np.float64]


@dataclass(frozen=True)
class PredictionTable:
    """Columns of the output. Numbers of images that cannot be read are NaN."""

    predictions: ImagePredictions
    kind: str
    """What is predicted: `multiclass`, or one of `task_facts.KINDS`."""
    classes: Sequence[str]
    """What each column of `predicted_NC` is: a class, a label, a grade, or the name of the number."""
    predicted: list[str]
    """The class, the labels, the number or the grade as text; empty for an image that cannot be read."""
    predicted_NC: Floats
    """The mean over seeds, of classes calibrated or not: probabilities, or the number (N, 1)."""
    uncertainty_N: Floats
    """What the page is sorted by: the larger, the less certain."""
    seed_spread_N: Floats
    """Standard deviation over seeds, of what `prediction_columns` says. NaN for one seed."""
    columns: Mapping[str, Column]
    """All columns between `slice` and `reason`, text or numbers (N,)."""
    digits: int
    """Decimals of a number."""
    summary: str
    """What was predicted how often, in brackets behind the number of images."""
    thresholds_T: Floats = field(default_factory=lambda: np.empty(0))
    """Of labels: at or above it a label is predicted. Empty for other kinds."""
    unit_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Columns of text before the reason, only where a row is a volume, an eye or a patient."""


def check_may_write(out: str, force: bool) -> None:
    """ConfigError for a wrong ending, a missing package, or a file that this command did not write."""
    if not out.endswith(ENDINGS):
        raise ConfigError(f"--out {out}: give a name that ends in {' or '.join(ENDINGS)}")
    if out.endswith(".parquet"):
        import_parquet("give a name that ends in .csv")
        output_files.check_may_write(out, COMMAND, force)
    else:
        # A mark would be a row for other programs. No other table has this header.
        output_files.check_may_write(out, COMMAND, force or _has_our_header(out))


def _has_our_header(out: str) -> bool:
    return (
        storage.exists(out)
        and not storage.is_folder(out)
        and storage.read_ends(out, len(_HEADER_START)).startswith(_HEADER_START)
    )


def write_table(table: PredictionTable, out: str) -> None:
    """Write the table to a path or URL, where it appears whole."""
    with new_temporary_folder() as folder:
        path = str(Path(folder) / "predictions")
        if out.endswith(".csv"):
            _write_csv(table, path)
        else:
            _write_parquet(table, path)
        storage.put_file(path, out)


def header(table: PredictionTable) -> list[str]:
    """The names of all columns."""
    return [*IDENTITY_COLUMNS, *table.columns, *table.unit_columns, REASON_COLUMN]


def _write_csv(table: PredictionTable, path: str) -> None:
    """Write the table as CSV. A file name that is not UTF-8 keeps its bytes."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header(table))
        writer.writerows(_text_rows(table))


def _text_rows(table: PredictionTable) -> Iterator[list[str]]:
    """The cells of each row as text; empty where a value is not known."""
    predictions, digits = table.predictions, table.digits

    def text(value: str | np.float64) -> str:
        return value if isinstance(value, str) else "" if np.isnan(value) else f"{value:.{digits}f}"

    columns = [*table.columns.values(), *table.unit_columns.values()]
    for row, (key, scan) in enumerate(zip(predictions.keys, predictions.facts, strict=True)):
        slice_text = "" if scan.slice is None else str(scan.slice)
        identity = [key, scan.patient or "", scan.eye or "", scan.volume or "", slice_text]
        yield [*identity, *(text(column[row]) for column in columns), predictions.reasons[row]]


def _write_parquet(table: PredictionTable, path: str) -> None:
    """Write the table as a Parquet file: numbers as numbers, all else as strings, unknown values as null."""
    arrow, parquet = import_parquet("give a name that ends in .csv")
    predictions = table.predictions

    def numbers(values_N: Floats) -> Any:
        rounded_N = values_N.round(table.digits)
        return arrow.array(rounded_N, mask=np.isnan(rounded_N))

    def texts(values: Sequence[str | None]) -> Any:
        # A file name may hold bytes that are not UTF-8, which Parquet does not take.
        return arrow.array(
            [(value or "").encode(errors="backslashreplace").decode() or None for value in values],
            arrow.string(),
        )

    facts = predictions.facts
    columns = {
        "key": texts(predictions.keys),
        "patient": texts([scan.patient for scan in facts]),
        "eye": texts([scan.eye for scan in facts]),
        "volume": texts([scan.volume for scan in facts]),
        "slice": arrow.array([scan.slice for scan in facts], arrow.int64()),
        **{
            name: numbers(column) if isinstance(column, np.ndarray) else texts(column)
            for name, column in {**table.columns, **table.unit_columns}.items()
        },
        REASON_COLUMN: texts(predictions.reasons),
    }
    metadata = {"made_by": output_files.mark(COMMAND)}
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path)
