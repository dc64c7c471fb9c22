"""Small tables beside data sets: columns by plain name, from CSV and Excel alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from shards.sources.datasets.label_tables import read_table
from tests.shards.published_layouts import write_labels_xlsx


def test_a_table_is_the_same_from_excel_and_from_csv(tmp_path: Path) -> None:
    write_labels_xlsx(tmp_path / "labels.xlsx")
    lines = ["ID,Sex,OS/OD,Age,Disease", "10001,M,OD,61,AMD", "10002,F,OS,40,NORMAL", "10301,F,OS,55,DR"]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    rows = read_table(str(tmp_path / "labels.xlsx"), "id", "disease")
    assert [(row["id"], row["osod"], row["disease"]) for row in rows] == [
        ("10001", "OD", "AMD"),
        ("10002", "OS", "NORMAL"),
        ("10301", "OS", "DR"),
    ]
    assert read_table(str(tmp_path / "labels.csv"), "id", "disease") == rows


def test_either_of_two_names_of_a_column_is_enough_and_a_table_without_both_has_no_rows(
    tmp_path: Path,
) -> None:
    table = tmp_path / "Train_GC_GT.csv"
    table.write_text("ImgName,GC_Label\n0001,1\n")
    assert read_table(str(table), "imgname|id", "gclabel|label") == [{"imgname": "0001", "gclabel": "1"}]
    assert read_table(str(table), "imgname", "disease") == []


def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the table .*none\.csv \(No such file or directory\)"):
        read_table(str(tmp_path / "none.csv"), "id")
