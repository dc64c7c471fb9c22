"""Which part each image of a labelled set is in: as a file says, as the set says, or divided by us.

A split file is a CSV with the columns key and part (more may follow), such as the split.csv of every
evaluation. What it says goes before the set's own split.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace

from retfound_dist import storage
from retfound_dist.errors import DataError, StorageError
from retfound_dist.evaluate.layouts import PARTS, Item
from retfound_dist.evaluate.split import split_by_unit
from retfound_dist.schema import EvalData

_NAMED = 3


def parts_of(
    items: Sequence[Item], config: EvalData, readable: Callable[[Item], bool]
) -> tuple[str, tuple[Item, ...]]:
    """How the set is divided (`file`, `given`, `patient`, `image`), and its items with their part.

    DataError where `data.split_file` does not fit; an image that is missing there and is not `readable`
    gets no part, for an evaluation's split.csv leaves it out.
    """
    if config.split_file and storage.exists(config.split_file):
        return "file", _as_filed(items, read_split(config.split_file), config, readable)
    return assign_parts(items, config.fractions, config.split_seed, config.path)


def assign_parts(
    items: Sequence[Item], fractions: tuple[float, float, float], seed: int, where: str
) -> tuple[str, tuple[Item, ...]]:
    """The same without a file.

    A split that the set brings wins; where it has no val part, one is taken out of train.
    """
    shares = dict(zip(PARTS, fractions, strict=True))
    given = sum(item.split is not None for item in items)
    if 0 < given < len(items):
        loose = next(item.key for item in items if item.split is None)
        raise DataError(
            f"{where}: {len(items) - given} images bear no split though others do, first {loose}: "
            "give each one or none"
        )
    if not given:
        by = "patient" if all(item.patient for item in items) else "image"
        return by, _divide(items, shares, seed)
    held = {item.split for item in items}
    if "val" not in held and "train" in held and shares["val"] > 0:
        train = [item for item in items if item.split == "train"]
        shares["test"] = 0.0
        part = {item.key: item.split for item in _divide(train, shares, seed)}
        items = [replace(item, split=part.get(item.key, item.split)) for item in items]
    return "given", tuple(items)


def read_split(url: str) -> dict[str, str]:
    """Key -> part of a split file; DataError where it is none."""
    try:
        reader = csv.DictReader(io.StringIO(storage.read_bytes(url).decode("utf-8-sig"), newline=""))
        columns = reader.fieldnames or []
        rows = list(reader)
    except (StorageError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.split_file={url} cannot be read ({error}): give a CSV of key,part") from error
    if "key" not in columns or "part" not in columns:
        raise DataError(
            f"data.split_file={url} has columns {', '.join(columns) or 'none'}: its header must be key,part"
        )
    parts: dict[str, str] = {}
    for line, row in enumerate(rows, 2):
        if row["part"] not in PARTS:
            raise DataError(
                f"data.split_file={url} line {line}: part {row['part']!r} is not {', '.join(PARTS)}"
            )
        if parts.setdefault(row["key"], row["part"]) != row["part"]:
            raise DataError(f"data.split_file={url} line {line}: {row['key']} is in two parts; choose one")
    return parts


def write_split(url: str, items: Sequence[Item]) -> None:
    """Put down each item's part, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("key", "part"), *((item.key, item.split) for item in items)])
    storage.write_text(url, text.getvalue())


def _as_filed(
    items: Sequence[Item], parts: dict[str, str], config: EvalData, readable: Callable[[Item], bool]
) -> tuple[Item, ...]:
    keys = {item.key for item in items}
    gone = [key for key in parts if key not in keys]
    missing = [item for item in items if item.key not in parts]
    faults = []
    if gone:
        faults.append(f"{len(gone)} of its images are not in the set ({_some(gone)})")
    if any(map(readable, missing)):
        names = _some([item.key for item in missing])
        faults.append(f"{len(missing)} images of the set are not in it ({names})")
    if faults:
        raise DataError(
            f"data.split_file={config.split_file} does not fit {config.path}: {'; '.join(faults)}: "
            "give this set's own, or another name for a new split"
        )
    return tuple(replace(item, split=parts.get(item.key)) for item in items)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _divide(items: Sequence[Item], shares: dict[str, float], seed: int) -> tuple[Item, ...]:
    units = [item.patient if item.patient is not None else item.key for item in items]
    parts = split_by_unit([item.label for item in items], units, shares, seed)
    return tuple(replace(item, split=part) for item, part in zip(items, parts, strict=True))
