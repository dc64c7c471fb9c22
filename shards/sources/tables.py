"""Small tables that come with data sets: CSV, and Excel's xlsx through openpyxl."""

from __future__ import annotations

import csv
import os
import zipfile

from retfound_dist.errors import ConfigError, DataError
from shards.record import printable

MAX_TABLE_BYTES = 20_000_000
MAX_UNPACKED_BYTES = 200_000_000
"""An xlsx is an archive; what unpacks to more is taken for a bomb."""
MAX_ROWS = 2_000_000


def read_table(path: str) -> list[dict[str, str]]:
    """Rows of a .csv or .xlsx by column name, every value as stripped text; DataError where it is broken."""
    if os.path.getsize(path) > MAX_TABLE_BYTES:
        raise DataError(f"{printable(path)} is too large for a table of labels: remove it from the folder")
    try:
        return _read_xlsx(path) if path.lower().endswith(".xlsx") else _read_csv(path)
    except ConfigError:
        raise
    except Exception as error:  # a damaged archive makes zlib, XML and openpyxl raise anything
        raise DataError(
            f"cannot read the table {printable(path)} ({_one_line(error)}): save it again or remove it"
        ) from error


def _read_csv(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        return [
            {str(key): str(value or "").strip() for key, value in row.items()}
            for row in csv.DictReader(stream)
        ]


def _read_xlsx(path: str) -> list[dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
            raise ValueError(f"unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ConfigError(
            f"{printable(path)} needs openpyxl: pip install retfound-dist[devices], or save it as CSV"
        ) from error
    book = load_workbook(path, read_only=True, data_only=True)
    try:
        rows = book.worksheets[0].iter_rows(values_only=True, max_row=MAX_ROWS)
        header = [_text(cell) for cell in next(rows, ())]
        return [dict(zip(header, map(_text, row), strict=False)) for row in rows]
    finally:
        book.close()


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
