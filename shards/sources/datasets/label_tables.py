"""Reads small tables that come with data sets. Columns have plain names (`OS/OD` -> `osod`)."""

from __future__ import annotations

from collections.abc import Sequence

from retfound_dist.errors import DataError
from retfound_dist.listing.table_files import normalized_name, parse_table
from shards.images.scan import printable


def read_table(path: str, *columns: str) -> list[dict[str, str]]:
    """Returns the rows of a .csv or .xlsx; none if one of the `columns` is missing (`a|b`: either name)."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise DataError(f"cannot read the table {printable(path)} ({error.strerror})") from error
    table = parse_table(data, printable(path), lambda cells: _count_columns(cells, columns))
    return table.records() if _count_columns(table.header, columns) == len(columns) else []


def _count_columns(cells: Sequence[str], columns: Sequence[str]) -> int:
    names = {normalized_name(cell) for cell in cells}
    return sum(any(name in names for name in column.split("|")) for column in columns)
