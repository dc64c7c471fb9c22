"""The table: its columns, its numbers, and the same content as CSV and as Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.prediction.input_images import ScanFacts
from retfound_dist.prediction.prediction_columns import prediction_table
from retfound_dist.prediction.prediction_run import ImagePredictions
from retfound_dist.prediction.prediction_table import write_table
from tests.prediction.inputs import read_rows

P_SNC = np.array(
    [[[0.5, 0.3, 0.2], [np.nan] * 3, [0.1, 0.2, 0.7]], [[0.7, 0.1, 0.2], [np.nan] * 3, [0.2, 0.2, 0.6]]]
)
PREDICTIONS = ImagePredictions(
    ["a", "b", "c"], [ScanFacts("p", "L", "v", 0), ScanFacts(), ScanFacts()], P_SNC, ["", "is blank", ""]
)


def test_csv_has_every_column_and_empty_cells_for_what_is_not_known(kept: Path, tmp_path: Path) -> None:
    facts = classifier_file.read(str(kept / "out/classifier"))
    write_table(prediction_table(PREDICTIONS, facts, calibrated=False), str(tmp_path / "p.csv"))
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "key,patient,eye,volume,slice,predicted,p_CSR,p_MH,p_NORMAL,entropy,seed_spread,reason"
    assert lines[1].startswith("a,p,L,v,0,CSR,0.60000000,0.20000000,0.20000000,0.86497352,0.14142136,")
    assert lines[2] == "b,,,,,,,,,,,is blank"
    assert lines[3].startswith("c,,,,,NORMAL,0.15000000,0.20000000,0.65000000,")


def test_one_seed_has_no_spread(kept: Path, tmp_path: Path) -> None:
    facts = classifier_file.read(str(kept / "out/classifier"))
    one = ImagePredictions(PREDICTIONS.keys, PREDICTIONS.facts, P_SNC[:1], PREDICTIONS.reasons)
    write_table(prediction_table(one, facts, calibrated=False), str(tmp_path / "p.csv"))
    assert [row["seed_spread"] for row in read_rows(tmp_path / "p.csv").values()] == ["", "", ""]


def test_parquet_has_the_numbers_of_the_csv(kept: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    facts = classifier_file.read(str(kept / "out/classifier"))
    table = prediction_table(PREDICTIONS, facts, calibrated=True)
    write_table(table, str(tmp_path / "p.csv"))
    write_table(table, str(tmp_path / "p.parquet"))
    stored = parquet.read_table(tmp_path / "p.parquet")
    assert stored.schema.metadata[b"made_by"] == b"made by retfound predict"
    rows = list(read_rows(tmp_path / "p.csv").values())
    assert stored.column_names == list(rows[0])
    for row, other in zip(rows, stored.to_pylist(), strict=True):
        for name, text in row.items():
            value = other[name]
            written = "" if value is None else f"{value:.8f}" if isinstance(value, float) else str(value)
            assert written == text
