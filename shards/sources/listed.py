"""A list of files as CSV: header file,label,patient,eye,volume,slice,split; only `file` must be there.

Paths are relative to the list's own folder and may not lead out of it.
"""

from __future__ import annotations

import os

from retfound_dist import storage
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.folder_walk import Links
from retfound_dist.shardset import SPLITS
from shards.record import Listing, Scan, printable, unique_keys
from shards.sources.published import image_scan
from shards.sources.tables import read_table


def list_csv(path: str, name: str = "", links: Links = "inside") -> Listing:
    """Every row's image; DataError names the row that is wrong."""
    if not path:
        raise ConfigError("source.path is empty: give the CSV file, such as source.path=data/list.csv")
    real = os.path.realpath(storage.local_path(path))
    if not os.path.isfile(real):
        raise DataError(f"there is no file {path}: check source.path")
    rows = {}
    for number, row in enumerate(read_table(real), start=2):
        file = os.path.normpath(row.get("file", "").replace("\\", "/"))
        if file == ".":
            raise DataError(f"{path} line {number} has no file: give the list a column `file`, filled")
        if file in rows:
            raise DataError(f"{path} line {number}: {printable(file)} is listed twice; keep one line a file")
        rows[file] = _fields(row, f"{path} line {number}")
    if not rows:
        raise DataError(f"{path} lists no files")
    root = os.path.dirname(real)
    source = name or os.path.splitext(os.path.basename(real))[0]
    keys = unique_keys(list(rows))
    scans = [_scan(root, file, source, key, rows[file], links) for file, key in zip(rows, keys, strict=True)]
    absent = sum(scan.size is None for scan in scans)
    return Listing(scans, (f"{absent:,} of {len(scans):,} listed files are not there",) if absent else ())


def _scan(
    root: str, file: str, source: str, key: str, fields: dict[str, object], links: Links
) -> Scan:
    where = os.path.join(root, file)
    size = os.path.getsize(where) if os.path.isfile(where) else None
    return image_scan(root, file, size, source, key, links, **fields)


def _fields(row: dict[str, str], where: str) -> dict[str, object]:
    fields: dict[str, object] = {
        name: row.get(name) or None for name in ("label", "patient", "eye", "volume")
    }
    split, place = row.get("split", ""), row.get("slice", "")
    if split and split.lower() not in SPLITS:
        raise DataError(f"{where}: split {split!r} is not train, val or test; correct it or leave it empty")
    if place and not place.isdigit():
        raise DataError(f"{where}: slice {place!r} is not a number; correct it or leave it empty")
    return {**fields, "split": SPLITS.get(split.lower()), "slice": int(place) if place else None}
