"""Lists the images of a folder.

    <class>/*.jpg                     label from the folder
    train|val|test/<class>/*.jpg      OCTID's layout: split and label from the folders
    *.jpg                             no label
    manifest.csv                      beside any of these (or .tsv, .xlsx): listing/image_lists.py reads it
    Set/...                           any of these, one or more levels down (listing.folder_layout)

`retfound_dist.files.image_files` decides which files are images and which links are followed.

The rows of a `manifest.csv` give label, patient and split. For an empty cell the folders decide. An image
that is not in the list is left out, because its patient is not known. Names of files show which slices are of
one volume (retfound_dist/listing/slice_sequences.py).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import NAMED_ENDS, find_files, read_file
from retfound_dist.io import storage
from retfound_dist.listing.folder_layout import FolderLayout, layout_notes, layout_of, passed_files_clause
from retfound_dist.listing.image_lists import Row, find_listing, read_listing, unread_tables_note
from retfound_dist.listing.slice_sequences import SlicePlace, SliceSequences
from shards.images.scan import Pixels, Scan, SourceListing, printable, unique_keys

FOLLOW = "source.follow_links=anywhere"
"""The setting that allows links out of a source's folder."""


def list_folder(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every image below a folder, in the order of its path; DataError if there is none."""
    root = check_folder(path)
    list_path = find_listing(root)
    found_files = find_files(root, links=links, used=(os.path.basename(list_path),) if list_path else ())
    layout = layout_of(found_files, shown_path=path)
    if list_path is None and layout.set_folder:
        list_path = find_listing(os.path.join(root, layout.set_folder))
    if list_path:
        rows, notes = _read_rows(root, list_path, found_files.paths)
    else:
        rows, notes = None, unread_tables_note(root)
    if not found_files.paths and not rows:
        raise DataError(
            f"no images in {path}: give source.path a folder with {NAMED_ENDS} files, such as "
            f"<class>/*.jpg or train|val|test/<class>/*.jpg{passed_files_clause(found_files, FOLLOW)}"
        )
    files = zip(found_files.paths, found_files.sizes, strict=True)
    scans = scans_of_files(root, path, files, rows, name, layout, links)
    return SourceListing(scans, (*notes, *layout_notes(found_files, layout, FOLLOW)))


def _read_rows(
    root: str, list_path: str, paths: Iterable[str]
) -> tuple[dict[str, Row] | None, tuple[str, ...]]:
    """Returns a list's rows by path below the root, and notes on them."""
    listing, folder, existing = read_listing(list_path), os.path.dirname(list_path), set(paths)
    base = os.path.relpath(folder, root)
    rows = {os.path.normpath(os.path.join(base, file)): row for file, row in listing.rows.items()}
    missing = [f for f in rows if f not in existing and not os.path.lexists(os.path.join(root, f))]
    return rows, (*listing.notes, *listing.missing_note(missing))


def scans_of_files(
    root: str,
    path: str,
    files: Iterable[tuple[str, int | None]],
    rows: Mapping[str, Row] | None = None,
    name: str = "",
    layout: FolderLayout | None = None,
    links: Links = "inside",
) -> list[Scan]:
    """Returns the scans of known files, as `list_folder` does, with little memory for millions of files."""
    layout = layout or FolderLayout()
    # Separate lists of paths and sizes, because a tuple for each of 1.6 million files takes too much memory.
    paths, sizes = [], array("q")
    for file, size in files:
        paths.append(file)
        sizes.append(-1 if size is None else size)
    # A listed file that does not exist becomes a scan that cannot be read, so that it is counted.
    missing = (rows or {}).keys() - set(paths if rows else ())
    paths += missing
    sizes.extend([-1] * len(missing))
    order = sorted(range(len(paths)), key=paths.__getitem__)
    paths, sizes = [paths[place] for place in order], array("q", (sizes[place] for place in order))
    del order
    source = name or os.path.basename(root) or "folder"
    # Keys and volumes come from the path below the set's own folder, so folders above it do not change them.
    names = [layout.relative_path(file) for file in paths] if layout.set_folder else paths
    part_and_class, sequences = lru_cache(maxsize=4096)(layout.part_and_class), SliceSequences(names)
    scans = []
    for file, file_name, size, key in zip(paths, names, sizes, unique_keys(names), strict=True):
        split, label = part_and_class(os.path.dirname(file))
        scan = Scan(
            key=key,
            origin=printable(file),
            source=source,
            read=FileReader(root, file, links),
            size=size if size >= 0 else None,
            label=label,
            split=split,
            **volume_fields(sequences.place_of(file_name)),
        )
        scans.append(scan if rows is None else _with_row(rows.get(file), scan))
    return scans


class FileReader:
    """A scan's `read`: calls `read_file`, and takes a quarter of the memory of a partial function."""

    __slots__ = ("file", "links", "root")

    def __init__(self, root: str, file: str, links: Links = "inside") -> None:
        self.root, self.file, self.links = root, file, links

    def __call__(self) -> bytes:
        """Returns the file's bytes."""
        return read_file(self.root, self.file, self.links)


def check_folder(path: str) -> str:
    """Returns the real path of a folder; ConfigError if no path is given, DataError if it does not exist."""
    if not path:
        raise ConfigError("source.path is empty: give a folder of images, such as source.path=data/octid")
    root = os.path.realpath(storage.local_path(path))
    if not os.path.exists(root):
        raise DataError(f"there is no folder {path}: check source.path")
    if not os.path.isdir(root):
        raise DataError(f"{path} is a file, not a folder of images: check source.path")
    return root


def volume_fields(place: SlicePlace) -> dict[str, Any]:
    """Returns volume, slice and group of a scan, from its file's name."""
    volume, group = (None if name is None else _printable(name) for name in (place.volume, place.group))
    return {"volume": volume, "slice": place.slice, "group": group}


@lru_cache(maxsize=4096)
def _printable(name: str) -> str:
    return printable(name)


def _with_row(row: Row | None, scan: Scan) -> Scan:
    """Returns the scan with the fields of its row; without a row it cannot be read and is left out."""
    if row is None:
        return replace(scan, read=_read_unlisted)
    return replace(
        scan, label=row.label or scan.label, split=row.split or scan.split, **patient_fields(row, scan)
    )


def patient_fields(row: Row, scan: Scan) -> dict[str, Any]:
    """Returns patient and eye from a list's row; volume and slice from there or from the file's name."""
    fields: dict[str, Any] = {"patient": row.patient, "eye": row.eye}
    if row.volume is None:
        return {**fields, "slice": scan.slice if row.slice is None else row.slice}
    return {**fields, "volume": row.volume, "slice": row.slice, "group": None}


def _read_unlisted() -> bytes | Pixels:
    raise DataError("is not listed in the manifest beside it")
