"""Lists a folder of image files, device files or both, with the keys that an evaluation gives them.

A `manifest.csv` in the folder gives patient, eye, volume and slice. All other files are listed too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import FolderFiles, Links
from retfound_dist.files.image_files import IMAGE_EXTENSIONS, NAMED_ENDS, find_files
from retfound_dist.io import storage
from retfound_dist.listing.folder_layout import FolderLayout, layout_of, passed_files_clause
from retfound_dist.listing.image_lists import ImageList, Row, find_listing, read_listing, unread_tables_note
from retfound_dist.listing.slice_sequences import SlicePlace, SliceSequences
from retfound_dist.prediction.input_images import (
    FOLLOW_LINKS,
    InputImage,
    InputListing,
    ScanFacts,
    with_known_patients,
)
from shards.images.scan import Scan
from shards.sources.devices.device import list_device_files
from shards.sources.folders.folder import FileReader


def list_folder_inputs(
    url: str, links: Links = "inside", on_progress: Callable[[int, int], None] | None = None
) -> InputListing:
    """Every image file below a folder, by key, then every B-scan of its device files.

    `on_progress`: called with the number of device files that are listed and of all. DataError where there
    is no image of either kind.
    """
    root = os.path.realpath(storage.local_path(url))
    list_path = find_listing(root)
    files = find_files(root, links=links, used=(os.path.basename(list_path),) if list_path else ())
    layout = _layout(files)
    if list_path is None and layout.set_folder:
        list_path = find_listing(os.path.join(root, layout.set_folder))
    device = list_device_files(
        url, "", links, apart=IMAGE_EXTENSIONS, follow=FOLLOW_LINKS, on_progress=on_progress
    )
    # Pictures that belong to a Heyex XML export are slices of its volume.
    others = set(device.others)
    paths = [file for file in files.paths if file in others] if device.scans else files.paths
    listed = read_listing(list_path) if list_path else None
    pictures, labels, notes = _pictures(files.root, paths, layout, listed, list_path, links)
    images, patient_notes = with_known_patients([*pictures, *map(device_input, device.scans)])
    if not images:
        raise DataError(
            f"no images in {url}: it must hold {NAMED_ENDS} files or device files (docs/device_files.md)"
            f"{passed_files_clause(files, FOLLOW_LINKS)}"
        )
    if not listed:
        notes += unread_tables_note(root)
    notes += device.notes if device.scans else tuple(files.skipped.lines(FOLLOW_LINKS))
    certain = listed is not None and any(row.label for row in listed.rows.values())
    return InputListing(images, (*notes, *patient_notes), labels, certain)


def _layout(files: FolderFiles) -> FolderLayout:
    """Where the set begins, for the keys; plain folders where their meaning as a labelled set is unclear."""
    try:
        return layout_of(files)
    except DataError:
        return FolderLayout()  # `evaluate` refuses such a set, so there are no keys of it to keep


def _pictures(
    root: str,
    paths: Sequence[str],
    layout: FolderLayout,
    listed: ImageList | None,
    list_path: str | None,
    links: Links,
) -> tuple[list[InputImage], tuple[str, ...], tuple[str, ...]]:
    """The image files by key, also listed ones that do not exist; their labels; notes on the list."""
    files = {layout.relative_path(file): FileReader(root, file, links) for file in paths}
    rows = _rows_by_key(listed, list_path, root, layout)
    missing = [key for key in rows if key not in files]
    base = os.path.join(root, layout.set_folder)
    files |= {key: FileReader(base, key, links) for key in missing}
    sequences = SliceSequences(list(files))
    images = [listed_image(files[key], key, rows.get(key), sequences.place_of(key)) for key in sorted(files)]
    labels = {layout.part_and_class(os.path.dirname(file))[1] for file in paths}
    labels |= {row.label for row in rows.values()}
    absent = [key for key in missing if not os.path.lexists(os.path.join(base, key))]
    notes = (*listed.notes, *listed.missing_note(absent)) if listed else ()
    return images, tuple(sorted(label for label in labels if label)), notes


def _rows_by_key(
    listed: ImageList | None, list_path: str | None, root: str, layout: FolderLayout
) -> dict[str, Row]:
    if listed is None or list_path is None:
        return {}
    in_root = os.path.dirname(list_path) == root
    prefix = f"{layout.set_folder}/" if in_root and layout.set_folder else ""
    return {file.removeprefix(prefix): row for file, row in listed.rows.items()}


def listed_image(content: FileReader, key: str, row: Row | None, place: SlicePlace) -> InputImage:
    """An image file with what its row of a list says, and else its name."""
    row = row or Row(0)
    volume, group = (place.volume, place.group) if row.volume is None else (row.volume, None)
    facts = ScanFacts(row.patient, row.eye, volume, place.slice if row.slice is None else row.slice)
    return InputImage(key, content, facts, group=group)


def device_input(scan: Scan) -> InputImage:
    """A B-scan of a device file."""
    facts = ScanFacts(scan.patient, scan.eye, scan.volume, scan.slice)
    # A file may hold several volumes, and is decoded as a whole.
    return InputImage(scan.key, scan.read, facts, together=scan.origin.split()[0], group=scan.group)
