"""A list of files (CSV, tabs or .xlsx): listing/image_lists.py reads it; only `file` must be there.

Paths are relative to the list's own folder and may not lead out of it.
"""

from __future__ import annotations

import os
from dataclasses import replace

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.io import storage
from retfound_dist.listing.image_lists import Row, read_listing
from retfound_dist.listing.slice_sequences import Place, Sequences
from shards.images.scan import Scan, SourceListing, unique_keys
from shards.sources.folders.folder import named_place, person_and_place
from shards.sources.folders.published import image_scan


def list_csv(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Every row's image; DataError names the row that is wrong."""
    if not path:
        raise ConfigError("source.path is empty: give the list, such as source.path=data/list.csv")
    real = os.path.realpath(storage.local_path(path))
    if not os.path.isfile(real):
        raise DataError(f"there is no file {path}: check source.path")
    listed = read_listing(real)
    if not listed.rows:
        raise DataError(f"{path} lists no files")
    root = os.path.dirname(real)
    source = name or os.path.splitext(os.path.basename(real))[0]
    files, sequences = list(listed.rows), Sequences(listed.rows)
    keys = unique_keys(files)
    scans = [
        _scan(root, file, source, key, listed.rows[file], sequences.of(file), links)
        for file, key in zip(files, keys, strict=True)
    ]
    missing = [file for file, scan in zip(files, scans, strict=True) if scan.size is None]
    return SourceListing(scans, (*listed.notes, *listed.missing_note(missing)))


def _scan(root: str, file: str, source: str, key: str, row: Row, place: Place, links: Links) -> Scan:
    where = os.path.join(root, file)
    size = os.path.getsize(where) if os.path.isfile(where) else None
    known = {"label": row.label, "split": row.split, **named_place(place)}
    scan = image_scan(root, file, size, source, key, links, **known)
    return replace(scan, **person_and_place(row, scan))
