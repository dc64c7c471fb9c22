"""Functions that the adapters of published sets share: file listings, published counts, notes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import IMAGE_EXTENSIONS, find_files
from retfound_dist.listing.folder_layout import passed_files_clause
from shards.images.scan import Scan, SourceListing, printable
from shards.sources.folders.folder import FOLLOW, FileReader, check_folder

MAX_NAMES = 5
"""Names that a note lists."""


def list_files(
    path: str,
    description: str,
    links: Links,
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
    used: Collection[str] = (),
) -> tuple[str, dict[str, int], list[str]]:
    """Returns the real folder, the files (relative path -> bytes) by path, and notes on skipped files.

    DataError if there are no files; `description` says in the message what is missing. `used`: names in the
    folder that the adapter reads itself. They are not counted as skipped.
    """
    root = check_folder(path)
    found_files = find_files(root, extensions, links, used)
    if not found_files.paths:
        raise DataError(
            f"no {description} in {path}: give source.path the folder of the unpacked download"
            + passed_files_clause(found_files, FOLLOW)
        )
    return (
        root,
        dict(zip(found_files.paths, found_files.sizes, strict=True)),
        found_files.skipped.lines(FOLLOW),
    )


def image_scan(
    root: str,
    file: str,
    size: int | None,
    source: str,
    key: str,
    links: Links = "inside",
    **fields: Any,
) -> Scan:
    """Returns the scan of one image file below a folder."""
    read = FileReader(root, file, links)
    return Scan(key=key, origin=printable(file), source=source, read=read, size=size, **fields)


def compare_counts(counts: Mapping[str, int], published: Mapping[str, int], unit: str) -> list[str]:
    """Returns one note if counts differ from the published ones, else none."""
    names = sorted(counts.keys() | published.keys())
    differing = [
        f"{name} {counts.get(name, 0):,} of {published.get(name, 0):,}"
        for name in names
        if counts.get(name, 0) != published.get(name, 0)
    ]
    if not differing:
        return []
    total, expected = sum(counts.values()), sum(published.values())
    return [f"{total:,} {unit} found, {expected:,} published: {', '.join(differing)}"]


def count_labels(scans: Iterable[Scan]) -> Counter[str]:
    """Counts images by label."""
    return Counter(scan.label or "(none)" for scan in scans)


def short_list(names: Sequence[str]) -> str:
    """Returns the first names and the number of the others."""
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return ", ".join(printable(name) for name in names[:MAX_NAMES]) + more


def natural_order(path: str) -> tuple[Any, ...]:
    """Returns a sort key by which 2.bmp comes before 10.bmp."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path))


def stem(path: str) -> str:
    """Returns a file's name without folder and extension."""
    return os.path.splitext(os.path.basename(path))[0]


def ignored_note(files: Sequence[str], reason: str) -> list[str]:
    """Returns one line on files that do not belong to the set."""
    return [f"{len(files):,} files ignored ({reason}): {short_list(files)}"] if files else []


def require_scans(scans: Sequence[Scan], path: str, notes: Sequence[str]) -> SourceListing:
    """Returns the listing; DataError if no file in the folder belongs to the set."""
    # Without this check a wrong folder would give an empty set.
    if not scans:
        raise DataError(
            f"{path} does not have the layout of the published set ({'; '.join(notes)}): "
            "give source.path its folder (docs/datasets.md), or use source.kind=folder"
        )
    return SourceListing(scans, tuple(notes))
