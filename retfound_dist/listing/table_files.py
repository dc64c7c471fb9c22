"""Reads tables as people save them (CSV with any delimiter, tabs, UTF-16, Excel's .xlsx) into rows of text.

    table = parse_table(data, "manifest.csv", count_known)
    table.header, [(line, cells), ...]

The bytes decide, not the file's name. An encoding that is not certain is refused with the line where it
shows, because a wrong guess turns every umlaut of a file name into another letter.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import math
import os
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.runtime.optional_packages import requires_extra

DELIMITERS = (",", ";", "\t", "|")
LIMIT_KEY = "RETFOUND_TABLE_GB"
"""Environment variable with another limit, in GB."""
LIMIT_GB = 4.0
"""Most GB of a table and of an unpacked .xlsx: some 50 million rows. More is a wrong file, or a zip bomb."""
EXCEL_ROWS = 1_048_576
"""Most rows of a sheet of Excel."""
_SAMPLE_ROWS = 50
"""Rows that the delimiter is chosen from."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # UTF-32 before UTF-16: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# The container of .xls; a workbook with a password is in one too.
_OLD_EXCEL = bytes.fromhex("d0cf11e0")
_EXACT_INTEGERS = 10**15
"""Excel keeps 15 digits of a number; a longer one has lost its last digits."""

Cells = tuple[str, ...]
CountKnownNames = Callable[[Sequence[str]], int]
"""How many cells of a row are names of columns that are looked for."""


@dataclass(frozen=True)
class Table:
    """A header and the rows below it, every cell as stripped text."""

    name: str
    """Its name in messages."""
    header: Cells
    rows: Iterable[tuple[int, Cells]]
    """(line of the file, cells) without rows of empty cells. Text is parsed again at each iteration, because
    millions of rows would not fit into memory as objects."""
    notes: tuple[str, ...] = ()
    """What was not read, a line each."""

    def checked_rows(self) -> Iterator[tuple[int, Cells]]:
        """Rows as wide as the header; DataError names the line of one that is not."""
        width = len(self.header)
        for line, cells in self.rows:
            if len(cells) > width and not any(cells[width:]):
                cells = cells[:width]
            if len(cells) != width:
                raise DataError(
                    f"{self.name} line {line} has {len(cells)} cells, its header has {width} columns "
                    f"({_shortened(cells)}): correct the line; a cell that holds the delimiter needs quotes"
                )
            yield line, cells

    def records(self) -> list[dict[str, str]]:
        """Rows as plain name of the column -> cell. Of two columns with the same name the first counts."""
        names = [normalized_name(name) for name in self.header]
        first = {name: column for column, name in reversed(list(enumerate(names))) if name}
        return [{name: cells[column] for name, column in first.items()} for _, cells in self.checked_rows()]


def normalized_name(text: str) -> str:
    """A column's name without case, accents, spaces and punctuation: `Patient ID` -> `patientid`."""
    # NFKD parts an accent from its letter; the accent is not alphanumeric and falls out.
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in decomposed if letter.isalnum())


def check_size(size: int, name: str) -> None:
    """DataError where a file of `size` bytes is too large for any list."""
    limit = _list_size_limit()
    if size > limit:
        raise DataError(
            f"{name} has {size / 1e9:,.1f} GB, but a list may have at most {limit / 1e9:g} GB: give the "
            f"right file, or allow more with {LIMIT_KEY}"
        )


def _list_size_limit() -> float:
    """The largest size of a list in bytes; the user may set another one in the environment."""
    text = os.environ.get(LIMIT_KEY, "")
    limit_gb = LIMIT_GB
    if text:
        try:
            limit_gb = float(text)
        except ValueError:
            limit_gb = math.nan
    if not 0 < limit_gb < math.inf:
        raise ConfigError(f"{LIMIT_KEY}={text} is not a number above 0: give gigabytes, as {LIMIT_GB:g}")
    return 1e9 * limit_gb


def parse_table(data: bytes, name: str, count_known: CountKnownNames = lambda cells: 0) -> Table:
    """Read the table in a file's bytes.

    DataError names the line or the encoding that is wrong; ConfigError says that openpyxl is missing.
    `count_known` chooses between delimiters, and between the sheets of a workbook.
    """
    check_size(len(data), name)
    if data.startswith(_OLD_EXCEL):
        raise DataError(f"{name} is an old Excel file (.xls) or has a password: save it as .xlsx or CSV")
    if data.startswith(b"PK\x03\x04"):
        return _parse_xlsx(data, name, count_known)
    return _parse_text(_decode_table(data, name), name, count_known)


def _decode_table(data: bytes, name: str) -> str:
    """The text of a table in UTF-8 or UTF-16; DataError where it is neither."""
    for byte_order_mark, encoding in _BOMS:
        if data.startswith(byte_order_mark):
            return _decode_strictly(data[len(byte_order_mark) :], encoding, name)
    head = data[:2000]
    # UTF-16 without a mark: nearly every second byte is 0, because headers are mostly ASCII.
    if 0 in head:
        for encoding, zeros_at in (("utf-16-le", 1), ("utf-16-be", 0)):
            high_bytes, low_bytes = head[zeros_at::2], head[1 - zeros_at :: 2]
            if high_bytes.count(0) > 0.8 * len(high_bytes) and 0 not in low_bytes:
                return _decode_strictly(data, encoding, name)
        raise DataError(f"{name} is not a text file (it has zero bytes): save the list as CSV UTF-8 or .xlsx")
    return _decode_strictly(data, "utf-8", name)


def _decode_strictly(data: bytes, encoding: str, name: str) -> str:
    """The text of the bytes; DataError names the line of a byte that is not in this encoding."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        text_before = data[: error.start].decode(encoding, errors="replace")
        line = 1 + len(re.findall(r"\r\n|\r|\n", text_before))
        bad_byte = data[error.start : error.start + 1]
        guess = bad_byte.decode("cp1252", errors="replace")
        hint = f"; in Latin-1 it is {guess!r}" if encoding == "utf-8" and guess.isprintable() else ""
        raise DataError(
            f"{name} line {line} is not {encoding.upper()} (byte 0x{bad_byte.hex().upper()}{hint}): "
            "save the list as CSV UTF-8 or as .xlsx"
        ) from error


def _parse_text(text: str, name: str, count_known: CountKnownNames) -> Table:
    """The table in delimited text; DataError names the line that is not CSV."""
    skipped_lines = 0
    # Excel writes and reads such a first line; it is no row of the table.
    delimiter_line = re.match(r"\s*sep=(.)\r?\n", text)
    if delimiter_line:
        delimiter, skipped_lines, text = delimiter_line[1], 1, text[delimiter_line.end() :]
    else:
        delimiter = _delimiter(text, count_known)
    rows = _TextRows(text, delimiter, skipped_lines, name)
    _, header = next(iter(rows), (0, ()))
    # One pass over the whole text, so that a row that is not CSV is an error here and not in the middle of
    # packing.
    width = max((_filled_width(cells) for _, cells in rows.below_header), default=0)
    # Excel keeps columns that were emptied: they have neither a name nor a value.
    while header and not header[-1] and len(header) > width:
        header = header[:-1]
    return Table(name, header, rows.below_header)


@dataclass(frozen=True)
class _TextRows:
    """Rows of a text, parsed again at each iteration."""

    text: str
    delimiter: str
    skipped_lines: int
    """Lines of the file before the text."""
    name: str
    skipped_rows: int = 0
    """Number of rows at the beginning that are left out."""

    @property
    def below_header(self) -> _TextRows:
        """The rows below the header."""
        return replace(self, skipped_rows=1)

    def __iter__(self) -> Iterator[tuple[int, Cells]]:
        return islice(self._all_rows(), self.skipped_rows, None)

    def _all_rows(self) -> Iterator[tuple[int, Cells]]:
        """Line number in the file and cells of each row that is not empty; DataError for broken quotes."""
        reader, begin = _reader(self.text, self.delimiter), 1
        try:
            for row in reader:
                begin = reader.line_num + 1
                cells = tuple(map(str.strip, row))
                if any(cells):
                    yield reader.line_num + self.skipped_lines, cells
        except csv.Error as error:
            raise DataError(
                f"{self.name} line {begin + self.skipped_lines} is not CSV ({error}): a quote is not "
                "closed, or is inside a cell; correct the line"
            ) from error


def _filled_width(cells: Cells) -> int:
    """Number of cells up to the last one that is not empty."""
    filled = len(cells)
    while filled and not cells[filled - 1]:
        filled -= 1
    return filled


def _reader(text: str, delimiter: str, strict: bool = True) -> Any:
    """A `csv.reader` of the text. Not `strict`: it guesses at wrong quotes instead of raising csv.Error."""
    # Not io.StringIO: it copies the text at four bytes a letter. Not str.splitlines: it also breaks lines at
    # form feeds and at Unicode's separators, which may stand within a cell.
    lines = (match[0] for match in _LINE.finditer(text))
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def _delimiter(text: str, count_known: CountKnownNames) -> str:
    """The delimiter that gives most known columns, then the one with most rows as wide as the first."""
    # Not csv.Sniffer: it guesses by letter frequencies and takes a comma inside names for the delimiter.

    def merit(delimiter: str) -> tuple[int, float, int]:
        """Known columns, share of rows as wide as the first, width: the largest tuple is the best."""
        rows = []
        try:
            for row in _reader(text, delimiter, strict=False):
                if any(map(str.strip, row)):
                    rows.append([cell.strip() for cell in row])
                if len(rows) == _SAMPLE_ROWS:
                    break
        except csv.Error:
            # No verdict on a sample: the whole text is parsed next, and that names the line.
            pass
        if not rows:
            return 0, 0.0, 0
        width = len(rows[0])
        share_as_wide = sum(len(row) == width for row in rows) / len(rows)
        # Every delimiter that does not occur gives one column in all rows.
        return count_known(rows[0]), share_as_wide if width > 1 else 0.0, width

    return max(DELIMITERS, key=merit)


def _make_table(name: str, rows: Sequence[tuple[int, Cells]], notes: tuple[str, ...] = ()) -> Table:
    """A table whose first row is the header; empty columns at its right end are left out."""
    header = rows[0][1] if rows else ()
    while header and not header[-1] and all(not any(cells[len(header) - 1 :]) for _, cells in rows[1:]):
        header = header[:-1]
    return Table(name, header, tuple(rows[1:]), notes)


def _parse_xlsx(data: bytes, name: str, count_known: CountKnownNames) -> Table:
    """The table in an .xlsx workbook; DataError where it is damaged or too large once unpacked."""
    try:
        # The sizes in the directory of the archive, before anything is unpacked: a zip bomb is small.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _list_size_limit():
                raise DataError(
                    f"{name} unpacks to more than {_list_size_limit() / 1e9:g} GB: save it as CSV, or allow "
                    f"more with {LIMIT_KEY}"
                )
        sheets = _read_sheets(data, name)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # a damaged archive makes zlib, XML and openpyxl raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(
            f"cannot read the table {name} ({reason}): is it an .xlsx workbook? Save it again, or as CSV"
        ) from error
    rows, notes = _choose_sheet(sheets, name, count_known)
    width = max((len(cells) for _, cells in rows), default=0)
    return _make_table(name, [(line, cells + ("",) * (width - len(cells))) for line, cells in rows], notes)


def _read_sheets(data: bytes, name: str) -> dict[str, list[tuple[int, Cells]]]:
    """Rows of each sheet that is not empty, by title, each with its line number."""
    with requires_extra(name, "devices", "save it as CSV UTF-8"):
        from openpyxl import load_workbook
    # read_only streams the rows; the other mode takes some fifty times the file in memory. data_only gives
    # the values that Excel computed, not the formulas.
    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    sheets = {}
    try:
        for sheet in book.worksheets:
            rows = [
                (line, tuple(map(_cell, row)))
                for line, row in enumerate(sheet.iter_rows(values_only=True), start=1)
            ]
            sheets[sheet.title] = [(line, cells) for line, cells in rows if any(cells)]
            # Excel opens a longer CSV without its end, and saves it so.
            if len(rows) >= EXCEL_ROWS and sheets[sheet.title][-1][0] >= EXCEL_ROWS:
                raise DataError(
                    f"{name}: sheet {sheet.title!r} has the most rows that Excel allows, {EXCEL_ROWS:,}: "
                    "later rows are missing; save the whole list as CSV UTF-8"
                )
    finally:
        book.close()
    return {title: rows for title, rows in sheets.items() if rows}


def _choose_sheet(
    sheets: dict[str, list[tuple[int, Cells]]], name: str, count_known: CountKnownNames
) -> tuple[list[tuple[int, Cells]], tuple[str, ...]]:
    """The rows of the only sheet with known columns, else of the first sheet, and a note about the others.

    `sheets`: title -> (line, cells) of its rows. DataError where several sheets have known columns.
    """
    if not sheets:
        return [], ()
    matching_titles = [title for title, rows in sheets.items() if count_known(rows[0][1])]
    if len(matching_titles) > 1:
        raise DataError(
            f"{name} holds lists in {len(matching_titles)} sheets ({', '.join(matching_titles)}): keep one, "
            "or save it as CSV"
        )
    title = matching_titles[0] if matching_titles else next(iter(sheets))
    others = [other for other in sheets if other != title]
    notes = (f"{name}: sheet {title!r} is read, not {', '.join(map(repr, others))}",) if others else ()
    return sheets[title], notes


def _cell(cell: object) -> str:
    """A cell as text; a number of more than Excel's 15 digits as 1.2E+15, as Excel writes it to CSV."""
    # The same text as in the CSV that Excel saves: patients of both files must have the same names.
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) >= _EXACT_INTEGERS:
        return f"{cell:.14E}"
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return "" if cell is None else str(cell).strip()


def _shortened(cells: Sequence[str]) -> str:
    """The cells of a row for a message, at most 100 characters."""
    text = ", ".join(repr(cell) for cell in cells)
    return text if len(text) <= 100 else text[:97] + "..."
