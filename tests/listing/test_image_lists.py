"""One list in the spellings that people use gives the same rows, or an error that names the column or the line."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.listing.image_lists import (
    ImageList,
    find_listing,
    is_known,
    join_spellings,
    read_listing,
    unread_tables_note,
)

FILES = ("A/0.jpg", "A/1.jpg", "B/0.jpg")


def listing(tmp_path: Path, text: str, name: str = "manifest.csv") -> ImageList:
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / name).write_text(text)
    return read_listing(str(tmp_path / name))


def rows(header: str, *cells: str) -> str:
    return "\n".join([header, *cells]) + "\n"


SAME = [
    "file,label,patient",
    "file, label, patient",
    "File,Label,Patient",
    "FILENAME,Class,patient_id",
    "image path,diagnosis,Patient ID",
    "img_name,Disease,PatientID",
    "Image Name,category,subject",
    "path,dx,Subject-ID",
    "file_name,ground_truth,MRN",
    "image,target,participant",
]


@pytest.mark.parametrize("header", SAME)
def test_usual_spellings_of_a_header_give_the_same_rows(tmp_path: Path, header: str) -> None:
    found = listing(tmp_path, rows(header, *(f"{file}, {file[0]}, p{file[0]}" for file in FILES))).rows
    assert [(file, row.label, row.patient) for file, row in found.items()] == [
        ("A/0.jpg", "A", "pA"),
        ("A/1.jpg", "A", "pA"),
        ("B/0.jpg", "B", "pB"),
    ]


def test_every_field_is_read_from_a_usual_name(tmp_path: Path) -> None:
    found = listing(tmp_path, rows("Filename;OS/OD;scan_id;B-Scan;Set", "A/0.jpg;OD;v1;3;Validation"))
    (row,) = found.rows.values()
    assert (row.eye, row.volume, row.slice, row.split) == ("R", "v1", 3, "val")


def test_what_was_found_and_what_was_not_used_is_said(tmp_path: Path) -> None:
    found = listing(tmp_path, rows("Filename,class,Patient ID,age,patient_age", "A/0.jpg,A,p1,40,40"))
    assert found.summary == (
        "manifest.csv: file <- 'Filename', label <- 'class', patient <- 'Patient ID'; "
        "not used: 'age', 'patient_age' (nearest known: 'patient')"
    )
    assert found.notes == (found.summary,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A/0.jpg,A,p1\nA/1.jpg,A,p1\n", r"has no header, its first line is that of an image \(A/0.jpg\)"),
        ("My study;;\nfile;label;patient\nA/0.jpg;A;1\n", "its header is in line 2"),
        ("", "is empty: its first line must be a header"),
        ("file,label\nA/0.jpg,A\nA/./0.jpg,B\n", r"line 3: A/0.jpg is listed twice \(line 2\)"),
        ("file,label\n,A\n", "line 2 has no file"),
        ("file,split\nA/0.jpg,dev\n", "line 2: split 'dev' is not train, val or test"),
        ("file,eye\nA/0.jpg,rechts\n", "line 2: eye 'rechts' is not R or L"),
        ("file,slice\nA/0.jpg,third\n", "line 2: slice 'third' is not a number"),
        (
            "file,patient\nA/0.jpg,1.23E+15\n",
            "line 2: patient '1.23E\\+15' is a number that Excel has shortened",
        ),
        (
            "file,class\nA/0.jpg,#REF!\n",
            "manifest.csv line 2: the column 'class' has #REF!, a formula that failed",
        ),
        ("file,label\n#NAME?,A\n", "line 2: the column 'file' has #NAME\\?, a formula"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        listing(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_spellings_of_one_patient_are_joined_and_said(tmp_path: Path) -> None:
    found = listing(tmp_path, rows("file,patient", "A/0.jpg,007", "A/1.jpg,7.0", "B/0.jpg,P 8"))
    assert [row.patient for row in found.rows.values()] == ["7", "7", "P 8"]
    assert found.notes[1] == "1 patient has several spellings, which are read as one: '7' = '007'"
    chosen, many = join_spellings(["P1", "p 1", "P10", "P01", None, "0", "00"])
    assert (chosen["p 1"], chosen["P10"], chosen["P01"], chosen["00"]) == ("P1", "P10", "P01", "0")
    assert many == [["P1", "p 1"], ["0", "00"]]


def test_a_patient_called_unknown_is_not_known(tmp_path: Path) -> None:
    found = listing(tmp_path, rows("file,patient", "A/0.jpg,unknown", "A/1.jpg,N/A", "B/0.jpg,p1"))
    assert [row.patient for row in found.rows.values()] == [None, None, "p1"]
    assert "manifest.csv: patient is given for 1 of 3 files" in found.notes
    assert [is_known(t) for t in ("", None, "NaN", " Not  Known ", "Anonymous", "0", "p")] == [False] * 5 + [
        True
    ] * 2


def test_paths_may_have_backslashes_dots_or_be_absolute_within_the_folder(tmp_path: Path) -> None:
    found = listing(
        tmp_path, rows("file", r"A\0.jpg", "./B/../A/1.jpg", str(tmp_path / "B" / "0.jpg"), "/etc/x.jpg")
    )
    assert list(found.rows) == [*FILES, "/etc/x.jpg"]


def test_files_that_are_not_there_are_counted_and_named(tmp_path: Path) -> None:
    found = listing(tmp_path, rows("file", "A/0.jpg", "A/8.jpg", "A/9.jpg"))
    assert found.missing_note(["A/8.jpg", "A/9.jpg"]) == (
        "manifest.csv: 2 of 3 listed files do not exist: A/8.jpg, A/9.jpg",
    )
    with pytest.raises(DataError, match=r"none of its 3 files exists \(A/0.jpg, A/8.jpg, A/9.jpg\)"):
        found.missing_note(list(found.rows))


def test_a_list_is_found_whatever_its_case_and_another_table_is_named(tmp_path: Path) -> None:
    assert (find_listing(str(tmp_path)), unread_tables_note(str(tmp_path))) == (None, ())
    (tmp_path / "labels.csv").write_text("file\n")
    assert find_listing(str(tmp_path)) is None
    assert unread_tables_note(str(tmp_path))[0].startswith(
        "labels.csv is not read: a list of the images must be called"
    )
    (tmp_path / "Manifest.CSV").write_text("file\n")
    assert find_listing(str(tmp_path)) == os.path.join(tmp_path, "Manifest.CSV")
    (tmp_path / "manifest.xlsx").write_text("file\n")
    with pytest.raises(DataError, match=r"holds two lists, Manifest.CSV and manifest.xlsx"):
        find_listing(str(tmp_path))


def test_a_list_of_many_images_takes_the_memory_of_its_rows(tmp_path: Path) -> None:
    """100,000 rows: names of patients, volumes and labels are held once, text is parsed as it is gone through."""
    text = "".join(f"A/{n:07d}.jpg,{'AB'[n % 2]},p{n // 500},v{n // 50},{n % 50}\n" for n in range(100_000))
    (tmp_path / "manifest.csv").write_text(f"file,label,patient,volume,slice\n{text}")
    tracemalloc.start()
    try:
        found = read_listing(str(tmp_path / "manifest.csv"))
        assert tracemalloc.get_traced_memory()[1] < 600 * 100_000
    finally:
        tracemalloc.stop()
    assert len(found.rows) == 100_000
    last = found.rows["A/0099999.jpg"]
    assert (last.line, last.label, last.patient, last.volume, last.slice) == (
        100_001,
        "B",
        "p199",
        "v1999",
        49,
    )
    assert found.rows["A/0099998.jpg"].volume is last.volume


def test_cells_of_requested_columns_are_read_in_the_order_of_the_request(tmp_path: Path) -> None:
    text = rows("file,age,sex", "A/0.jpg,51.0,F", "A/1.jpg,n/a,", "B/0.jpg,7,  m ")
    (tmp_path / "list.csv").write_text(text)
    read = read_listing(str(tmp_path / "list.csv"), requested=("sex", "age"))
    assert [row.requested for row in read.rows.values()] == [("F", "51"), (None, None), ("m", "7")]
    assert read.summary == "list.csv: file <- 'file', 'sex', 'age'"
    assert [row.requested for row in read_listing(str(tmp_path / "list.csv")).rows.values()] == [()] * 3


def test_a_requested_column_with_a_failed_formula_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(rows("file,sex", "A/0.jpg,F", "A/1.jpg,#REF!"))
    with pytest.raises(DataError, match=r"list\.csv line 3: the column 'sex' has #REF!, a formula"):
        read_listing(str(tmp_path / "list.csv"), requested=("sex",))
