"""A folder of image files, as most labelled sets come.

    <class>/*.jpg                     label from the folder
    train|val|test/<class>/*.jpg      OCTID's layout: split and label from the folders
    *.jpg                             no label
    manifest.csv                      beside any of these (or .tsv, .xlsx): listing/image_lists.py reads it
    Set/...                           any of these, one or more levels down (listing.folder_layout)

Which files are found, which links are followed: retfound_dist.files.image_files.

Where there is a `manifest.csv` it is the list: its rows say label, patient and split (an empty cell
leaves it to the folders), and an image that it does not name is kept out, for its patient is unknown.
Slices of one volume are told by their names (retfound_dist/listing/slice_sequences.py).
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
from retfound_dist.listing.folder_layout import FolderLayout, layout_of, notes_of, nothing_found
from retfound_dist.listing.image_lists import Row, find_listing, other_tables, read_listing
from retfound_dist.listing.slice_sequences import Place, Sequences
from shards.images.scan import Pixels, Scan, SourceListing, printable, unique_keys

FOLLOW = "source.follow_links=anywhere"
"""How a user allows links that lead out of a source's folder."""


def list_folder(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Every image below a folder, in the order of its path; DataError where there is none."""
    root = check_folder(path)
    where = find_listing(root)
    found_files = find_files(root, links=links, used=(os.path.basename(where),) if where else ())
    layout = layout_of(found_files, shown=path)
    if where is None and layout.inside:
        where = find_listing(os.path.join(root, layout.inside))
    rows, notes = _read_rows(root, where, found_files.paths) if where else (None, other_tables(root))
    if not found_files.paths and not rows:
        raise DataError(
            f"no images in {path}: give source.path a folder with {NAMED_ENDS} files, such as "
            f"<class>/*.jpg or train|val|test/<class>/*.jpg{nothing_found(found_files, FOLLOW)}"
        )
    files = zip(found_files.paths, found_files.sizes, strict=True)
    scans = scans_of_files(root, path, files, rows, name, layout, links)
    return SourceListing(scans, (*notes, *notes_of(found_files, layout, FOLLOW)))


def _read_rows(root: str, where: str, paths: Iterable[str]) -> tuple[dict[str, Row], tuple[str, ...]]:
    """A list's rows by path below the root, and notes on them."""
    listed, base, present = read_listing(where), os.path.relpath(os.path.dirname(where), root), set(paths)
    rows = {os.path.normpath(os.path.join(base, file)): row for file, row in listed.rows.items()}
    missing = [f for f in rows if f not in present and not os.path.lexists(os.path.join(root, f))]
    return rows, (*listed.notes, *listed.missing_note(missing))


def scans_of_files(
    root: str,
    path: str,
    files: Iterable[tuple[str, int | None]],
    rows: Mapping[str, Row] | None = None,
    name: str = "",
    layout: FolderLayout | None = None,
    links: Links = "inside",
) -> list[Scan]:
    """The scans of known files, as `list_folder` gives them, in few objects for millions of files."""
    layout = layout or FolderLayout()
    # Paths and sizes apart: a tuple for each of 1.6 million files takes memory that a plan can do without.
    paths, sizes = [], array("q")
    for file, size in files:
        paths.append(file)
        sizes.append(-1 if size is None else size)
    # A listed file that is not there becomes a scan that cannot be read: counted, not silently absent.
    missing = (rows or {}).keys() - set(paths if rows else ())
    paths += missing
    sizes.extend([-1] * len(missing))
    order = sorted(range(len(paths)), key=paths.__getitem__)
    paths, sizes = [paths[place] for place in order], array("q", (sizes[place] for place in order))
    del order
    source = name or os.path.basename(root) or "folder"
    # Keys and volumes come from the path below the set's own folder: where it was unpacked changes no key.
    names = [layout.own(file) for file in paths] if layout.inside else paths
    known, sequences = lru_cache(maxsize=4096)(layout.part_and_class), Sequences(names)
    scans = []
    for file, name_of, size, key in zip(paths, names, sizes, unique_keys(names), strict=True):
        split, label = known(os.path.dirname(file))
        scan = Scan(
            key=key,
            origin=printable(file),
            source=source,
            read=FileReader(root, file, links),
            size=size if size >= 0 else None,
            label=label,
            split=split,
            **named_place(sequences.of(name_of)),
        )
        scans.append(scan if rows is None else _apply(rows.get(file), scan))
    return scans


class FileReader:
    """A scan's `read`: `read_file`, in a quarter of the memory of a partial function."""

    __slots__ = ("file", "links", "root")

    def __init__(self, root: str, file: str, links: Links = "inside") -> None:
        self.root, self.file, self.links = root, file, links

    def __call__(self) -> bytes:
        """The file's bytes."""
        return read_file(self.root, self.file, self.links)


def check_folder(path: str) -> str:
    """The real path of a folder that is there; ConfigError or DataError."""
    if not path:
        raise ConfigError("source.path is empty: give the folder of images, such as source.path=data/octid")
    root = os.path.realpath(storage.local_path(path))
    if not os.path.exists(root):
        raise DataError(f"there is no folder {path}: check source.path")
    if not os.path.isdir(root):
        raise DataError(f"{path} is a file, not a folder of images: check source.path")
    return root


def named_place(place: Place) -> dict[str, Any]:
    """Volume, slice and group of a scan, from its file's name."""
    volume, group = (None if name is None else _shown(name) for name in (place.volume, place.group))
    return {"volume": volume, "slice": place.slice, "group": group}


@lru_cache(maxsize=4096)
def _shown(name: str) -> str:
    return printable(name)


def _apply(row: Row | None, scan: Scan) -> Scan:
    if row is None:
        return replace(scan, read=_not_listed)
    return replace(
        scan, label=row.label or scan.label, split=row.split or scan.split, **person_and_place(row, scan)
    )


def person_and_place(row: Row, scan: Scan) -> dict[str, Any]:
    """Patient, eye, volume and slice from a list's row. Without a volume there the file's name decides."""
    if row.volume is None:
        place = scan.slice if row.slice is None else row.slice
        return {"patient": row.patient, "eye": row.eye, "slice": place}
    known = {"volume": row.volume, "slice": row.slice, "group": None}
    return {"patient": row.patient, "eye": row.eye, **known}


def _not_listed() -> bytes | Pixels:
    raise DataError("is not listed in the manifest beside it")
