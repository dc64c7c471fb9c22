"""Lists the images of a table (CSV, tabs or .xlsx). listing/image_lists.py reads it; only `file` is required.

Paths are relative to the table's folder and may not lead out of it.
"""

from __future__ import annotations

import os
from dataclasses import replace

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.io import storage
from retfound_dist.listing.image_lists import Row, read_listing
from retfound_dist.listing.slice_sequences import SlicePlace, SliceSequences
from shards.images.scan import Scan, SourceListing, unique_keys
from shards.sources.folders.folder import patient_fields, volume_fields
from shards.sources.folders.published import image_scan


def list_csv(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every row's image; DataError names a row with a mistake."""
    if not path:
        raise ConfigError("source.path is empty: give a list of images, such as source.path=data/list.csv")
    real_path = os.path.realpath(storage.local_path(path))
    if not os.path.isfile(real_path):
        raise DataError(f"there is no file {path}: check source.path")
    listing = read_listing(real_path)
    if not listing.rows:
        raise DataError(f"{path} lists no files: add a row for each image")
    root = os.path.dirname(real_path)
    source = name or os.path.splitext(os.path.basename(real_path))[0]
    files, sequences = list(listing.rows), SliceSequences(listing.rows)
    scans = [
        _make_scan(root, file, source, key, listing.rows[file], sequences.place_of(file), links)
        for file, key in zip(files, unique_keys(files), strict=True)
    ]
    missing = [file for file, scan in zip(files, scans, strict=True) if scan.size is None]
    return SourceListing(scans, (*listing.notes, *listing.missing_note(missing)))


def _make_scan(
    root: str, file: str, source: str, key: str, row: Row, place: SlicePlace, links: Links
) -> Scan:
    path = os.path.join(root, file)
    size = os.path.getsize(path) if os.path.isfile(path) else None
    fields = {"label": row.label, "split": row.split, **volume_fields(place)}
    scan = image_scan(root, file, size, source, key, links, **fields)
    return replace(scan, **patient_fields(row, scan))
