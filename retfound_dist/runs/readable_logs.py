"""Reads a run's logs for display. What cannot be used is left out and reported, and is never an error."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from retfound_dist.errors import RetfoundError, StorageError
from retfound_dist.formats.log_rows import Row
from retfound_dist.formats.log_rows import read_log as read_lines
from retfound_dist.io import storage
from retfound_dist.records import json_reader

T = TypeVar("T")


def read_log(url: str, name: str) -> tuple[list[Row], str]:
    """The usable lines of one of a run's logs, and a sentence about the others; empty: there are none."""
    try:
        log = read_lines(url, name)
    except StorageError as error:
        return [], f"{name} is not read: {error}"
    return log.rows, replace(log, where=name).fault


def read_part(url: str, name: str, kind: type[T]) -> tuple[T | None, str]:
    """A JSON file of a run, and why it is left out; neither where there is no such file."""
    where = storage.join(url, name)
    try:
        return (json_reader.read(where, kind, "it is left out") if storage.exists(where) else None), ""
    except RetfoundError as error:
        # The page or list says which run it is about: the file's name is enough.
        return None, str(error).replace(where, name, 1)
