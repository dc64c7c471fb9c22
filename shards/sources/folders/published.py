"""Functions that the data sets' adapters share: file listings, published counts, short notes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import IMAGE_ENDS, find_files
from retfound_dist.listing.folder_layout import nothing_found
from shards.images.scan import Scan, SourceListing, printable
from shards.sources.folders.folder import FOLLOW, FileReader, check_folder

FEW = 5
"""Names spelt out in a note."""


def list_files(
    path: str, description: str, links: Links, ends: tuple[str, ...] = IMAGE_ENDS
) -> tuple[str, dict[str, int], list[str]]:
    """(real folder, relative path -> bytes, notes on what was passed over) in the order of the paths.

    DataError saying `description` where there is none.
    """
    root = check_folder(path)
    found_files = find_files(root, ends, links)
    if not found_files.paths:
        raise DataError(
            f"no {description} in {path}: give source.path the folder the download was unpacked to"
            + nothing_found(found_files, FOLLOW)
        )
    return (
        root,
        dict(zip(found_files.paths, found_files.sizes, strict=True)),
        found_files.passed.lines(FOLLOW),
    )


def image_scan(
    root: str,
    file: str,
    size: int | None,
    source: str,
    key: str,
    links: Links = "inside",
    **known: Any,
) -> Scan:
    """One image file below a folder."""
    read = FileReader(root, file, links)
    return Scan(key=key, origin=printable(file), source=source, read=read, size=size, **known)


def compare_counts(counts: Mapping[str, int], published: Mapping[str, int], unit: str) -> list[str]:
    """One note where counts differ from the published ones, none where they are equal."""
    names = sorted(counts.keys() | published.keys())
    differing = [
        f"{name} {counts.get(name, 0):,} of {published.get(name, 0):,}"
        for name in names
        if counts.get(name, 0) != published.get(name, 0)
    ]
    if not differing:
        return []
    total, wanted = sum(counts.values()), sum(published.values())
    return [f"{total:,} {unit} found, {wanted:,} published: {', '.join(differing)}"]


def count_labels(scans: Iterable[Scan]) -> Counter[str]:
    """Counts images by label."""
    return Counter(scan.label or "(none)" for scan in scans)


def short_list(names: Sequence[str]) -> str:
    """The first few names and how many more."""
    more = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return ", ".join(printable(name) for name in names[:FEW]) + more


def natural_order(path: str) -> tuple[Any, ...]:
    """Sort key by which 2.bmp comes before 10.bmp."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path))


def stem(path: str) -> str:
    """File name without folder and extension."""
    return os.path.splitext(os.path.basename(path))[0]


def ignored_note(files: Sequence[str], why: str) -> list[str]:
    """One line on files that are no part of the set."""
    return [f"{len(files):,} files left aside ({why}): {short_list(files)}"] if files else []


def require_scans(scans: Sequence[Scan], path: str, notes: Sequence[str]) -> SourceListing:
    """The listing; DataError where nothing in the folder is of the set."""
    # A set that was not recognised would otherwise become an empty one.
    if not scans:
        raise DataError(
            f"nothing in {path} lies as the set does when it is downloaded ({'; '.join(notes)}): "
            "give source.path its folder (docs/datasets.md), or use source.kind=folder"
        )
    return SourceListing(scans, tuple(notes))
