"""The one reader of lists of images: CSV of any delimiter, tabs or .xlsx -> what each row says of a file.

    listed = read_listing("set/manifest.csv")
    listed.rows["A/im0.jpg"].patient, listed.notes

Columns are known by their usual names (list_columns.py), encodings and delimiters by the bytes
(table_files.py). What was found is said in `notes`; what cannot be right is refused with its line.
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
from retfound_dist.listing.list_columns import FIELDS, SPLIT_FILE, find_columns, known_counter
from retfound_dist.listing.table_files import Table, check_size, parse_table

LISTINGS = (".csv", ".tsv", ".xlsx")
"""How the name of a list ends."""
STEM = "manifest"
"""A list of this name beside the images is theirs."""
EXAMPLE = "file,label,patient,eye,volume,slice,split"
NOT_KNOWN = frozenset(
    (
        *("", "na", "n/a", "#n/a", "nan", "none", "null", "unknown", "unk", "not known", "missing"),
        *("?", "-", "--", "anonymous", "anonymized", "anonymised", "anon", "removed", "deidentified"),
    )
)
"""Cells that say that a patient, a volume, an eye or a part is not known."""
_EYES = {"od": "R", "os": "L", "r": "R", "l": "L", "right": "R", "left": "L", "re": "R", "le": "L"}
_IMAGE_NAME = re.compile(r".+\.(jpe?g|jpe|jfif|png|tiff?|bmp|webp|gif|jp2|p[gpbn]m|dcm|dicom)", re.IGNORECASE)
_SHORTENED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_ERROR_CELL = re.compile(r"#(REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!)")
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Row:
    """What a list says of one file."""

    line: int
    label: str | None = None
    patient: str | None = None
    eye: str | None = None
    """`L` or `R`."""
    volume: str | None = None
    slice: int | None = None
    split: str | None = None
    """`train`, `val` or `test`."""


@dataclass(frozen=True)
class Listed:
    """A list that was read."""

    name: str
    rows: Mapping[str, Row]
    """By file: relative to the list's folder, absolute where it lies elsewhere; with forward slashes."""
    said: str
    """`manifest.csv: file <- 'Filename', patient <- 'Patient ID'; not used: 'age'`."""
    notes: tuple[str, ...] = ()
    """`said` first, then whatever else a person should know, a line each."""

    def missing_note(self, missing: Sequence[str]) -> tuple[str, ...]:
        """One line for listed files that are not there; DataError where that is all of them."""
        if not missing:
            return ()
        some = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        if len(missing) == len(self.rows):
            raise DataError(
                f"{self.name}: none of its {len(missing):,} files is there ({some}): paths are taken from "
                "the list's own folder and need the file's whole name"
            )
        return (f"{self.name}: {len(missing):,} of {len(self.rows):,} listed files are not there: {some}",)


def find_listing(folder: str) -> str | None:
    """The path of the `manifest.csv`, `.tsv` or `.xlsx` in a folder, whatever its case; DataError for two."""
    names = [
        name
        for name in sorted(os.listdir(folder))
        if os.path.splitext(name.lower()) in [(STEM, end) for end in LISTINGS]
    ]
    if len(names) > 1:
        raise DataError(f"{folder} holds two lists, {names[0]} and {names[1]}: keep one of them")
    return os.path.join(folder, names[0]) if names else None


def other_tables(folder: str) -> tuple[str, ...]:
    """A line where tables lie beside the images and none is called manifest: nobody reads them."""
    names = [name for name in sorted(os.listdir(folder)) if name.lower().endswith(LISTINGS)]
    if not names:
        return ()
    return (
        f"{', '.join(names[:_NAMED])} is not read: a list of the images must be called {STEM}.csv "
        f"(or {STEM}.xlsx), or be given itself",
    )


def read_listing(path: str, needed: Sequence[str] = ("file",)) -> Listed:
    """The rows of a list by file; DataError names the column, the encoding or the line that is wrong."""
    name = os.path.basename(path)
    try:
        with open(path, "rb") as stream:
            check_size(os.fstat(stream.fileno()).st_size, path)
            table = parse_table(stream.read(), path, known_counter(FIELDS))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    _check_header(table)
    columns = find_columns(table, FIELDS, needed, EXAMPLE)
    rows = _rows(table, columns.places, os.path.realpath(os.path.dirname(path)))
    rows, joined = _joined(rows)
    said = f"{name}: {columns.said}"
    sheets = (note.replace(path, name) for note in table.notes)
    return Listed(name, rows, said, (said, *sheets, *joined, *_counts(name, rows, columns.places)))


def _rows(table: Table, places: Mapping[str, int], root: str) -> dict[str, Row]:
    """The rows by file; DataError names the line of one that cannot be right."""
    others, rows = [(field, at) for field, at in places.items() if field != "file"], dict[str, Row]()
    for line, cells in table.whole_rows():
        if not cells[places["file"]]:
            raise DataError(f"{table.name} line {line} has no file: fill its cell, or remove the line")
        try:
            file = _file(cells[places["file"]], root)
            if file in rows:
                raise ValueError(f"{file} is listed twice (line {rows[file].line}); keep one line a file")
            rows[file] = Row(line, **{field: _value(field, cells[at]) for field, at in others})
        except ValueError as error:
            raise DataError(f"{table.name} line {line}: {error}") from None
    return rows


def read_split_file(url: str) -> Iterator[tuple[int, str, str]]:
    """(line, key, part as it stands there) of a split file; DataError where it is none."""
    check_size(storage.size(url), url)
    table = parse_table(storage.read_bytes(url), url, known_counter(SPLIT_FILE))
    columns = find_columns(table, SPLIT_FILE, ("key", "part"), "key,part")
    for line, cells in table.whole_rows():
        yield line, cells[columns.places["key"]], cells[columns.places["part"]]


def is_known(text: str | None) -> bool:
    """Whether a cell or a device's field names a patient at all: `unknown`, `NA`, `-` do not."""
    return text is not None and " ".join(text.split()).casefold() not in NOT_KNOWN


def _check_header(table: Table) -> None:
    known = known_counter(FIELDS)
    if known(table.header):
        return
    first = next((cell for cell in table.header if _IMAGE_NAME.fullmatch(cell)), None)
    if first:
        raise DataError(
            f"{table.name} has no header, its first line is of an image ({first}): "
            f"put a line with the columns' names above it, such as {EXAMPLE}"
        )
    for line, cells in islice(table.rows, 10):
        if known(cells) > 1:
            raise DataError(
                f"{table.name}: its header stands in line {line}, below other lines: remove what is above it"
            )


def _file(text: str, root: str) -> str:
    if _ERROR_CELL.fullmatch(text):
        raise ValueError(f"file is {text}: correct this cell")
    path = os.path.normpath(text.replace("\\", "/"))
    if os.path.isabs(path):
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if os.path.commonpath([root, real]) == root:
            path = os.path.relpath(real, root)
    return path


@lru_cache(maxsize=1 << 17)
def _value(field: str, text: str) -> Any:
    """What a cell says, the same object for the same text; ValueError says what is wrong with it."""
    if _ERROR_CELL.fullmatch(text):
        raise ValueError(f"{field} is {text}: correct this cell")
    if field == "label":
        return _whole(text) or None
    if field in ("patient", "volume") and _SHORTENED.fullmatch(text):
        raise ValueError(
            f"{field} {text!r} is a number that Excel has shortened, so that different ones "
            "look alike: format the column as text and enter it again"
        )
    known = text if is_known(text) else ""
    return {"eye": _eye, "slice": _slice, "split": _split}.get(field, _name)(known)


def _name(text: str) -> str | None:
    return _whole(text) or None


def _whole(text: str) -> str:
    """Without double spaces; a whole number without the `.0` that Excel and pandas add."""
    return re.sub(r"^([+-]?\d+)[.,]0+$", r"\1", " ".join(text.split()))


def _eye(text: str) -> str | None:
    if text and text.casefold() not in _EYES:
        raise ValueError(
            f"eye {text!r} is not R or L (OD, OS, right, left): correct it or leave it empty; "
            "call the column 'x_eye' if it is something else"
        )
    return _EYES[text.casefold()] if text else None


def _slice(text: str) -> int | None:
    text = _whole(text)
    if text and not text.isdigit():
        raise ValueError(
            f"slice {text!r} is not a number: correct it or leave it empty; "
            "call the column 'x_slice' if it is something else"
        )
    return int(text) if text else None


def _split(text: str) -> str | None:
    if text and text.lower() not in SPLITS:
        raise ValueError(
            f"split {text!r} is not train, val or test: correct it or leave it empty; "
            "call the column 'x_split' if it is something else"
        )
    return SPLITS[text.lower()] if text else None


def _joined(rows: dict[str, Row]) -> tuple[dict[str, Row], tuple[str, ...]]:
    """Rows in which spellings of a patient are one (`join_spellings`), and a line that names them."""
    notes = []
    for field in ("patient", "volume"):
        chosen, many = join_spellings(getattr(row, field) for row in rows.values())
        if many:
            rows = {file: _with(row, field, chosen.get(getattr(row, field))) for file, row in rows.items()}
            some = "; ".join(" = ".join(map(repr, names)) for names in many[:_NAMED])
            more = "; ..." if len(many) > _NAMED else ""
            who = f"1 {field} has" if len(many) == 1 else f"{len(many):,} {field}s have"
            notes.append(f"{who} several spellings, taken for one: {some}{more}")
    return rows, tuple(notes)


def _with(row: Row, field: str, name: str | None) -> Row:
    return replace(row, patient=name) if field == "patient" else replace(row, volume=name)


def join_spellings(names: Iterable[str | None]) -> tuple[dict[str | None, str], list[list[str]]]:
    """Each name's one spelling, and the spellings of those that have several.

    Names that differ only by case, spaces or leading zeros (`P 1`, `p1`; `007`, `7`) are one patient: to
    join two is safe, to part one is a leak. The first spelling by length and alphabet stands for all.
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if name is not None:
            plain = "".join(name.split()).casefold()
            spellings[plain.lstrip("0") or "0" if plain.isdigit() else plain].add(name)
    groups = [sorted(found, key=lambda name: (len(name), name)) for found in spellings.values()]
    chosen: dict[str | None, str] = {name: group[0] for group in groups for name in group}
    return chosen, [group for group in groups if len(group) > 1]


def _counts(name: str, rows: Mapping[str, Row], places: Mapping[str, int]) -> tuple[str, ...]:
    """A line for columns that are there and not filled everywhere."""
    notes = []
    for field in ("patient", "label", "volume"):
        filled = sum(getattr(row, field) is not None for row in rows.values())
        if field in places and filled < len(rows):
            notes.append(f"{name}: {field} is given for {filled:,} of {len(rows):,} files")
    return tuple(notes)
