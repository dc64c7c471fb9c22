"""Reads lists of images (CSV with any delimiter, tabs, .xlsx): a row of labels and patients for each file.

    listed = read_listing("set/manifest.csv")
    listed.rows["A/im0.jpg"].patient, listed.notes

`list_columns.py` recognizes the columns by their usual names, `table_files.py` the encoding and the delimiter
by the bytes. `notes` report how the list was read. A wrong row is refused with its line.
Packing and evaluation both read lists here.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import SPLITS
from retfound_dist.io import storage
from retfound_dist.listing.list_columns import FIELDS, SPLIT_FILE, Columns, find_columns, known_counter
from retfound_dist.listing.table_files import Table, check_size, parse_table

LISTINGS = (".csv", ".tsv", ".xlsx")
"""Endings of the names of lists."""
LIST_STEM = "manifest"
"""A list with this name beside the images is read as their list."""
HEADER_EXAMPLE = "file,label,patient,eye,volume,slice,split"
UNKNOWN_NAMES = frozenset(
    (
        *("", "na", "n/a", "#n/a", "nan", "none", "null", "unknown", "unk", "not known", "missing"),
        *("?", "-", "--", "anonymous", "anonymized", "anonymised", "anon", "removed", "deidentified"),
    )
)
"""Cells that mean that a patient, a volume, an eye or a part is unknown."""
# Otherwise all images of "anonymous" would be one patient, and all of them would go to one part of the split.
_EYES = {"od": "R", "os": "L", "r": "R", "l": "L", "right": "R", "left": "L", "re": "R", "le": "L"}
_IMAGE_NAME = re.compile(r".+\.(jpe?g|jpe|jfif|png|tiff?|bmp|webp|gif|jp2|p[gpbn]m|dcm|dicom)", re.IGNORECASE)
_SHORTENED_NUMBER = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
# What Excel writes into a CSV for a formula that fails: as a patient's name it would join patients at random.
_ERROR_CELL = re.compile(r"#(REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!)")
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A list's entry for one file. None: not given, or not known."""

    line: int
    label: str | None = None
    patient: str | None = None
    eye: str | None = None
    """`L` or `R`."""
    volume: str | None = None
    slice: int | None = None
    split: str | None = None
    """`train`, `val` or `test`."""
    requested: tuple[str | None, ...] = ()
    """Cells of the columns that `read_listing` was asked for."""


@dataclass(frozen=True)
class ImageList:
    """A list that was read."""

    name: str
    rows: Mapping[str, Row]
    """By path: relative to the list's folder, absolute if the file is elsewhere; with forward
    slashes."""
    summary: str
    """`manifest.csv: file <- 'Filename', patient <- 'Patient ID'; not used: 'age'`."""
    notes: tuple[str, ...] = ()
    """`summary`, then everything else that a person should know, a line each."""

    def missing_note(self, missing: Sequence[str]) -> tuple[str, ...]:
        """A line about listed files that do not exist; DataError where none exists."""
        if not missing:
            return ()
        some = ", ".join(missing[:_MAX_NAMED]) + (", ..." if len(missing) > _MAX_NAMED else "")
        if len(missing) == len(self.rows):
            raise DataError(
                f"{self.name}: none of its {len(missing):,} files exists ({some}): paths must start at "
                "the list's folder and end in the whole file name"
            )
        return (f"{self.name}: {len(missing):,} of {len(self.rows):,} listed files do not exist: {some}",)


def find_listing(folder: str) -> str | None:
    """The path of the `manifest.csv`, `.tsv` or `.xlsx` in a folder, whatever its case; DataError for two."""
    # Listed and compared, not opened by name: on Linux `Manifest.CSV` is another file than `manifest.csv`.
    names = [
        name
        for name in storage.list_names(folder)
        if os.path.splitext(name.lower()) in [(LIST_STEM, end) for end in LISTINGS]
    ]
    if len(names) > 1:
        raise DataError(f"{folder} holds two lists, {names[0]} and {names[1]}: keep one of them")
    return os.path.join(folder, names[0]) if names else None


def unread_tables_note(folder: str) -> tuple[str, ...]:
    """A line about tables beside the images where none is called manifest: they are not read."""
    names = [name for name in storage.list_names(folder) if name.lower().endswith(LISTINGS)]
    if not names:
        return ()
    return (
        f"{', '.join(names[:_MAX_NAMED])} is not read: a list of the images must be called {LIST_STEM}.csv "
        f"(or {LIST_STEM}.xlsx), or be given itself",
    )


def read_listing(path: str, required: Sequence[str] = ("file",), requested: Sequence[str] = ()) -> ImageList:
    """Read a list; DataError names the column, the encoding or the line that is wrong.

    `requested`: titles of further columns, whose cells become `Row.requested`.
    """
    name = os.path.basename(path)
    try:
        with open(path, "rb") as stream:
            check_size(os.fstat(stream.fileno()).st_size, path)
            table = parse_table(stream.read(), path, known_counter(FIELDS))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    # Before the columns are looked for: a list without a header would be refused for a column called
    # `A/0.jpg`.
    _check_header(table)
    columns = find_columns(table, FIELDS, required, HEADER_EXAMPLE, requested)
    rows = _parse_rows(table, columns, os.path.realpath(os.path.dirname(path)))
    rows, spelling_notes = _join_row_spellings(rows)
    summary = f"{name}: {columns.summary}"
    sheets = (note.replace(path, name) for note in table.notes)
    return ImageList(
        name, rows, summary, (summary, *sheets, *spelling_notes, *_fill_notes(name, rows, columns.positions))
    )


def _parse_rows(table: Table, columns: Columns, list_folder: str) -> dict[str, Row]:
    """Rows by path; DataError names the line of a wrong row. `list_folder`: its real path."""
    file_column = columns.positions["file"]
    other_columns = {field: column for field, column in columns.positions.items() if field != "file"}
    rows: dict[str, Row] = {}
    for line, cells in table.checked_rows():
        if not cells[file_column]:
            raise DataError(f"{table.name} line {line} has no file: fill its cell, or remove the line")
        try:
            file = _file_path(cells[file_column], list_folder)
            if file in rows:
                raise ValueError(f"{file} is listed twice (line {rows[file].line}); keep one line a file")
            values = {field: _cell_value(field, cells[column]) for field, column in other_columns.items()}
            rows[file] = Row(line, **values)
            # Not for every row of every list: lists have millions of rows.
            if columns.requested:
                cells_requested = (_cell_value("requested", cells[column]) for column in columns.requested)
                rows[file] = replace(rows[file], requested=tuple(cells_requested))
        except ValueError as error:
            raise _cell_error(table, columns, line, cells, error) from None
    return rows


def read_split_file(url: str) -> Iterator[tuple[int, str, str]]:
    """(line, key, unchanged text of the part) of each row of a split file; DataError where it is not one."""
    check_size(storage.size(url), url)
    table = parse_table(storage.read_bytes(url), url, known_counter(SPLIT_FILE))
    columns = find_columns(table, SPLIT_FILE, ("key", "part"), "key,part")
    for line, cells in table.checked_rows():
        yield line, cells[columns.positions["key"]], cells[columns.positions["part"]]


def read_fields(
    path: str, required: Sequence[str], example: str
) -> tuple[str, Iterator[tuple[int, dict[str, Any]]]]:
    """(name, (line, field -> value) of each row) of a table of other things than files.

    DataError where a `required` column is missing or a cell is wrong. `example`: a good header, for messages.
    """
    if not os.path.isfile(path):
        raise DataError(f"{path} does not exist, or is not a file: give a table such as {example}")
    check_size(storage.size(path), path)
    table = parse_table(storage.read_bytes(path), path, known_counter(FIELDS))
    columns = find_columns(table, FIELDS, required, example)

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for line, cells in table.checked_rows():
            try:
                yield line, {name: _cell_value(name, cells[at]) for name, at in columns.positions.items()}
            except ValueError as error:
                raise _cell_error(table, columns, line, cells, error) from None

    return os.path.basename(path), rows()


def is_known(text: str | None) -> bool:
    """Whether a cell or a device's field names a patient; `unknown`, `NA` and `-` do not."""
    return text is not None and " ".join(text.split()).casefold() not in UNKNOWN_NAMES


class _FailedFormula(ValueError):
    """A cell of a spreadsheet whose formula gave no value."""


def _cell_error(
    table: Table, columns: Columns, line: int, cells: Sequence[str], error: ValueError
) -> DataError:
    """The error of a wrong cell. That of a formula names the column as the list does."""
    if not isinstance(error, _FailedFormula):
        return DataError(f"{table.name} line {line}: {error}")
    columns_read = (*columns.positions.values(), *columns.requested)
    title = next(table.header[column] for column in columns_read if cells[column] == str(error))
    fault = f"the column {title!r} has {error}, a formula that failed"
    return DataError(f"{table.name} line {line}: {fault}: correct this cell")


def _check_header(table: Table) -> None:
    """DataError where the first line is that of an image, or where the header comes later."""
    count_known = known_counter(FIELDS)
    if count_known(table.header):
        return
    first = next((cell for cell in table.header if _IMAGE_NAME.fullmatch(cell)), None)
    if first:
        raise DataError(
            f"{table.name} has no header, its first line is that of an image ({first}): "
            f"insert a line with the column names above it, such as {HEADER_EXAMPLE}"
        )
    for line, cells in islice(table.rows, 10):
        if count_known(cells) > 1:
            raise DataError(f"{table.name}: its header is in line {line}: remove the lines above it")


def _file_path(text: str, list_folder: str) -> str:
    if _ERROR_CELL.fullmatch(text):
        raise _FailedFormula(text)
    # Lists made on Windows. No file of a data set has a backslash in its name on purpose.
    path = os.path.normpath(text.replace("\\", "/"))
    if os.path.isabs(path):
        # The data folder may be reached through a link. A file that is itself a link keeps its own name.
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if os.path.commonpath([list_folder, real]) == list_folder:
            path = os.path.relpath(real, list_folder)
    return path


# Cached so that all rows of one patient share one string, and each text is checked once: lists have millions
# of rows.
@lru_cache(maxsize=1 << 17)
def _cell_value(field: str, text: str) -> Any:
    """The value of a cell, the same object for the same text; ValueError says what is wrong with it."""
    if _ERROR_CELL.fullmatch(text):
        raise _FailedFormula(text)
    if field == "label":
        return _clean_text(text) or None
    if field in ("patient", "volume") and _SHORTENED_NUMBER.fullmatch(text):
        raise ValueError(
            f"{field} {text!r} is a number that Excel has shortened, so that different numbers "
            "look the same: format the column as text and enter it again"
        )
    known_text = text if is_known(text) else ""
    parsers = {"eye": _eye_value, "slice": _slice_value, "split": _split_value}
    return parsers.get(field, _name_value)(known_text)


def _name_value(text: str) -> str | None:
    return _clean_text(text) or None


def _clean_text(text: str) -> str:
    """The text without double spaces, and whole numbers without the `.0` that Excel and pandas add."""
    return re.sub(r"^([+-]?\d+)[.,]0+$", r"\1", " ".join(text.split()))


def _eye_value(text: str) -> str | None:
    if text and text.casefold() not in _EYES:
        raise ValueError(
            f"eye {text!r} is not R or L (OD, OS, right, left): correct it or leave it empty; "
            "call the column 'x_eye' if it is something else"
        )
    return _EYES[text.casefold()] if text else None


def _slice_value(text: str) -> int | None:
    text = _clean_text(text)
    if text and not text.isdigit():
        raise ValueError(
            f"slice {text!r} is not a number: correct it or leave it empty; "
            "call the column 'x_slice' if it is something else"
        )
    return int(text) if text else None


def _split_value(text: str) -> str | None:
    if text and text.lower() not in SPLITS:
        raise ValueError(
            f"split {text!r} is not train, val or test: correct it or leave it empty; "
            "call the column 'x_split' if it is something else"
        )
    return SPLITS[text.lower()] if text else None


def _join_row_spellings(rows: dict[str, Row]) -> tuple[dict[str, Row], tuple[str, ...]]:
    """The rows with one spelling for each patient and volume (`join_spellings`), and lines that name the
    others."""
    notes = []
    for field in ("patient", "volume"):
        spelling, groups = join_spellings(getattr(row, field) for row in rows.values())
        if groups:
            rows = {
                file: _with_name(row, field, spelling.get(getattr(row, field))) for file, row in rows.items()
            }
            examples = "; ".join(" = ".join(map(repr, names)) for names in groups[:_MAX_NAMED])
            more = "; ..." if len(groups) > _MAX_NAMED else ""
            subject = f"1 {field} has" if len(groups) == 1 else f"{len(groups):,} {field}s have"
            notes.append(f"{subject} several spellings, which are read as one: {examples}{more}")
    return rows, tuple(notes)


def _with_name(row: Row, field: str, name: str | None) -> Row:
    # Spelt out, for mypy cannot check `replace(row, **{field: name})`.
    return replace(row, patient=name) if field == "patient" else replace(row, volume=name)


def join_spellings(names: Iterable[str | None]) -> tuple[dict[str | None, str], list[list[str]]]:
    """(name -> its one spelling, groups of names with several spellings).

    Names that differ only by case, spaces or leading zeros (`P 1`, `p1`; `007`, `7`) are one patient. The
    shortest spelling, then the first by the alphabet, stands for all.
    """
    # Rather join too much: two patients taken for one only make a split coarser. One patient taken for two
    # may be in training and in test, which is a leak.
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if name is not None:
            plain = "".join(name.split()).casefold()
            spellings[plain.lstrip("0") or "0" if plain.isdigit() else plain].add(name)
    groups = [sorted(group, key=lambda name: (len(name), name)) for group in spellings.values()]
    chosen: dict[str | None, str] = {name: group[0] for group in groups for name in group}
    return chosen, [group for group in groups if len(group) > 1]


def _fill_notes(name: str, rows: Mapping[str, Row], column_of_field: Mapping[str, int]) -> tuple[str, ...]:
    """A line for each column that is not filled in every row."""
    notes = []
    for field in ("patient", "label", "volume"):
        filled = sum(getattr(row, field) is not None for row in rows.values())
        if field in column_of_field and filled < len(rows):
            notes.append(f"{name}: {field} is given for {filled:,} of {len(rows):,} files")
    return tuple(notes)
