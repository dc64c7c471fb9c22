"""Whatever a table was saved by, its cells come out the same, or the refusal names the line or the encoding."""

from __future__ import annotations

import datetime
import io
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.listing import table_files
from retfound_dist.listing.list_columns import FIELDS, known_counter
from retfound_dist.listing.table_files import Table, _parse_xlsx, check_size, normalized_name, parse_table

HEADER = ("file", "label", "patient")
ROWS = [("A/im0.jpg", "A", "p1"), ("A/im 1.jpg", "A", ""), ("B/Größe.jpg", "B", "p2")]


def text(delimiter: str = ",", end: str = "\n", header: tuple[str, ...] = HEADER) -> str:
    return "".join(delimiter.join(row) + end for row in (header, *ROWS))


def workbook(**sheets: list[tuple[object, ...]]) -> bytes:
    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def parse(data: bytes) -> Table:
    return parse_table(data, "list.csv", known_counter(FIELDS))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_delimiters_line_ends_and_encodings_change_nothing(delimiter: str, end: str, encoding: str) -> None:
    table = parse(text(delimiter, end).encode(encoding))
    assert table.header == HEADER
    assert [(line, cells) for line, cells in table.checked_rows()] == list(enumerate(ROWS, start=2))


def test_a_table_in_latin_1_is_refused_with_line_and_letter() -> None:
    with pytest.raises(DataError, match=r"list.csv line 4 is not UTF-8 \(byte 0xF6; in Latin-1 it is 'ö'\)"):
        parse(text(";").encode("latin-1"))


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match="is not a text file"):
        parse(b"file,label\n\0\0\0\1\2\0\0\0,A\n")
    with pytest.raises(DataError, match=r"old Excel file \(\.xls\)"):
        parse(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512))
    with pytest.raises(DataError, match=r"cannot read the table list\.csv"):
        parse(b"PK\x03\x04 and no archive")


def test_a_delimiter_within_cells_does_not_win() -> None:
    notes = "\n".join(f"A/{n}.jpg;A, or B, or C" for n in range(5))
    table = parse(f"file;label\n{notes}\n".encode())
    assert next(iter(table.rows))[1] == ("A/0.jpg", "A, or B, or C")
    quoted = parse(b'file,label\n"a,1.jpg","A; B"\n')
    assert list(quoted.checked_rows()) == [(2, ("a,1.jpg", "A; B"))]


def test_excels_hint_of_the_delimiter_is_no_header() -> None:
    table = parse(b"sep=;\r\nfile;label\r\na.jpg;A\r\n")
    assert (table.header, tuple(table.rows)) == (("file", "label"), ((3, ("a.jpg", "A")),))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a.jpg,A,p\nb.jpg,B\n", r"line 3 has 2 cells, its header has 3 columns \('b.jpg', 'B'\)"),
        ("a.jpg,A,p\nb.jpg,B,p,x\n", "line 3 has 4 cells"),
        ('a.jpg,A,p\n"b.jpg,B,p\nc.jpg,C,p\n', "line 3 is not CSV"),
    ],
)
def test_a_line_that_is_too_short_too_long_or_open_is_named(rows: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(parse(f"file,label,patient\n{rows}".encode()).checked_rows())


def test_empty_lines_and_columns_that_excel_has_kept_are_nothing() -> None:
    table = parse(b"\n;;;;\nfile;label;;;\na.jpg;A;;;\n\n;;;;\nb.jpg;B;;;\n")
    assert table.header == ("file", "label")
    assert list(table.checked_rows()) == [(4, ("a.jpg", "A")), (7, ("b.jpg", "B"))]


def test_cells_of_excel_are_the_text_one_sees() -> None:
    day = datetime.datetime(2021, 3, 4)
    rows = [("file", "label", "patient", "seen"), ("a.jpg", 1.0, 7, day), ("b.jpg", 0.5, None, None)]
    table = parse(workbook(list=[*rows, ("c.jpg", True, 12345678901234567, "x")]))
    assert [cells for _, cells in table.checked_rows()] == [
        ("a.jpg", "1", "7", "2021-03-04"),
        ("b.jpg", "0.5", "", ""),
        ("c.jpg", "True", "1.23456789012346E+16", "x"),
    ]


def test_the_sheet_with_the_list_is_read_and_the_others_are_named() -> None:
    found = parse(workbook(notes=[("made in May",)], images=[("file", "label"), ("a.jpg", "A")]))
    assert found.header == ("file", "label")
    assert found.notes == ("list.csv: sheet 'images' is read, not 'notes'",)
    two = workbook(a=[("file", "label"), ("a.jpg", "A")], b=[("file", "label"), ("b.jpg", "A")])
    with pytest.raises(DataError, match=r"holds lists in 2 sheets \(a, b\): keep one"):
        parse(two)


def test_without_openpyxl_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        ConfigError, match=r"needs openpyxl: pip install 'retfound-dist\[devices\]'"
    ) as caught:
        parse(workbook_bytes)
    assert "\n" not in str(caught.value)


workbook_bytes = workbook(list=[("file",), ("a.jpg",)])


def test_names_of_columns_count_without_case_accents_and_punctuation() -> None:
    assert {normalized_name(t) for t in ("Patient ID", "patient_id", " PATIENT-Id ", "patiënt.id")} == {
        "patientid"
    }


WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORD, WORD, WORD), min_size=1, max_size=6), st.sampled_from(",;\t|"), st.booleans())
def test_any_text_in_quoted_cells_comes_back(rows: list[tuple[str, ...]], delimiter: str, wide: bool) -> None:
    import csv

    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    table = parse(stream.getvalue().encode("utf-16" if wide else "utf-8"))
    assert table.header == HEADER
    assert [cells for _, cells in table.checked_rows()] == rows


def test_what_is_larger_than_any_list_is_refused_and_the_limit_can_be_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_size(3_900_000_000, "list.csv")
    with pytest.raises(
        DataError, match=r"list.csv has 5.0 GB, but a list may have at most 4 GB: .*RETFOUND_TABLE_GB"
    ):
        check_size(5_000_000_000, "list.csv")
    monkeypatch.setenv("RETFOUND_TABLE_GB", "6")
    check_size(5_000_000_000, "list.csv")
    monkeypatch.setenv("RETFOUND_TABLE_GB", "0.000001")
    with pytest.raises(DataError, match="unpacks to more than 1e-06 GB: save it as CSV, or allow more with"):
        _parse_xlsx(workbook_bytes, "list.csv", lambda cells: 0)
    for text in ("much", "nan", "inf", "-1", "0"):
        monkeypatch.setenv("RETFOUND_TABLE_GB", text)
        with pytest.raises(ConfigError, match=f"RETFOUND_TABLE_GB={text} is not a number above 0: give giga"):
            check_size(5, "list.csv")


def test_a_sheet_that_is_full_is_refused_because_what_came_after_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("file", "label"), ("a.jpg", "A"), ("b.jpg", "B")]
    monkeypatch.setattr(table_files, "EXCEL_ROWS", 4)
    assert len(list(parse(workbook(images=rows)).rows)) == 2
    monkeypatch.setattr(table_files, "EXCEL_ROWS", 3)
    with pytest.raises(
        DataError,
        match=r"sheet 'images' has the most rows that Excel allows, 3: .* save the whole list as CSV",
    ):
        parse(workbook(images=rows))


def test_rows_can_be_gone_through_again_and_are_not_held() -> None:
    text = "file,label,patient\n" + "".join(f"A/{n:06d}.jpg,A,p{n}\n" for n in range(50_000))
    data = text.encode()
    tracemalloc.start()
    try:
        table = parse(data)
        assert sum(1 for _ in table.checked_rows()) == sum(1 for _ in table.rows) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(data)
    finally:
        tracemalloc.stop()
