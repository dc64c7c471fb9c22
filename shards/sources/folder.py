"""A folder of image files, as most labelled sets come.

    <class>/*.jpg                     label from the folder
    train|val|test/<class>/*.jpg      OCTID's layout: split and label from the folders
    *.jpg                             no label
    manifest.csv                      beside any of these; columns file, label, patient, split
    Set/...                           any of these, one or more levels down (retfound_dist.folder_layout)

Which files are found, which links are followed: retfound_dist.image_files.

Where there is a `manifest.csv` it is the list: its rows say label, patient and split (an empty cell
leaves it to the folders), and an image that it does not name is kept out, for its patient is unknown.
"""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from retfound_dist import storage
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.folder_layout import Layout, layout_of, notes_of, nothing_found
from retfound_dist.folder_walk import Links
from retfound_dist.image_files import NAMED_ENDS, find_files, read_file
from retfound_dist.shardset import SPLITS
from shards.record import Listing, Pixels, Scan, printable, unique_keys

LISTING = "manifest.csv"
FOLLOW = "source.follow_links=anywhere"
"""How a user allows links that lead out of a source's folder."""


@dataclass(frozen=True)
class _Row:
    """What a listing says of one file."""

    label: str | None
    patient: str | None
    split: str | None


def list_folder(path: str, name: str = "", links: Links = "inside") -> Listing:
    """Every image below a folder, in the order of its path; DataError where there is none."""
    root = check_folder(path)
    found = find_files(root, links=links, used=(LISTING,))
    layout = layout_of(found, shown=path)
    base = listing_folder(root, layout)
    rows = None if base is None else read_listing(os.path.join(root, base, LISTING))
    if rows and base:
        rows = {os.path.join(base, file): row for file, row in rows.items()}
    if not found.paths and not rows:
        raise DataError(
            f"no images in {path}: give source.path a folder with {NAMED_ENDS} files, such as "
            f"<class>/*.jpg or train|val|test/<class>/*.jpg{nothing_found(found, FOLLOW)}"
        )
    files = zip(found.paths, found.sizes, strict=True)
    scans = scans_of(root, path, files, rows, name, layout, links)
    return Listing(scans, notes_of(found, layout, FOLLOW))


def listing_folder(root: str, layout: Layout) -> str | None:
    """Where the listing lies: in the root (`""`), or in the folder that the set begins in; None: nowhere."""
    places = ("", layout.inside) if layout.inside else ("",)
    return next((base for base in places if os.path.isfile(os.path.join(root, base, LISTING))), None)


def scans_of(
    root: str,
    path: str,
    files: Iterable[tuple[str, int | None]],
    rows: Mapping[str, _Row] | None = None,
    name: str = "",
    layout: Layout | None = None,
    links: Links = "inside",
) -> list[Scan]:
    """`list_folder` of files that are known; millions of them are kept in few objects each."""
    layout = layout or Layout()
    paths, sizes = [], array("q")
    for file, size in files:
        paths.append(file)
        sizes.append(-1 if size is None else size)
    missing = (rows or {}).keys() - set(paths if rows else ())
    paths += missing
    sizes.extend([-1] * len(missing))
    order = sorted(range(len(paths)), key=paths.__getitem__)
    paths, sizes = [paths[place] for place in order], array("q", (sizes[place] for place in order))
    del order
    source = name or os.path.basename(root) or "folder"
    keys = unique_keys([layout.own(file) for file in paths] if layout.inside else paths)
    known = lru_cache(maxsize=4096)(layout.part_and_class)
    scans = []
    for file, size, key in zip(paths, sizes, keys, strict=True):
        split, label = known(os.path.dirname(file))
        scan = Scan(
            key=key,
            origin=printable(file),
            source=source,
            read=InFolder(root, file, links),
            size=size if size >= 0 else None,
            label=label,
            split=split,
        )
        scans.append(scan if rows is None else _apply(rows.get(file), scan))
    return scans


class InFolder:
    """A scan's `read`: `read_file`, in a quarter of the memory of a partial function."""

    __slots__ = ("file", "links", "root")

    def __init__(self, root: str, file: str, links: Links = "inside") -> None:
        self.root, self.file, self.links = root, file, links

    def __call__(self) -> bytes:
        """The file's bytes."""
        return read_file(self.root, self.file, self.links)


def read_listing(path: str) -> dict[str, _Row]:
    """`manifest.csv` as file -> what it says; DataError names the line that is wrong."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            if "file" not in columns:
                raise DataError(
                    f"{path} has no column 'file' (it has {', '.join(columns) or 'none'}): "
                    "its header must be file,label,patient or file,label,patient,split"
                )
            rows: dict[str, _Row] = {}
            for row in reader:
                where = f"{path} line {reader.line_num}"
                file = os.path.normpath((row["file"] or "").strip().replace("\\", "/"))
                if file in rows:
                    raise DataError(f"{where}: {printable(file)} is listed twice; keep one line a file")
                rows[file] = _parse_row(row, where)
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a UTF-8 CSV file ({error}): save it as one, or remove it") from error


def _parse_row(row: Mapping[str, str | None], where: str) -> _Row:
    label, patient, split = ((row.get(name) or "").strip() or None for name in ("label", "patient", "split"))
    if split and split.lower() not in SPLITS:
        raise DataError(f"{where}: split {split!r} is not train, val or test; correct it or leave it empty")
    return _Row(label, patient, SPLITS[split.lower()] if split else None)


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


def _apply(row: _Row | None, scan: Scan) -> Scan:
    if row is None:
        return replace(scan, read=_not_listed)
    return replace(scan, label=row.label or scan.label, patient=row.patient, split=row.split or scan.split)


def _not_listed() -> bytes | Pixels:
    raise DataError(f"is not listed in the {LISTING} beside it")
