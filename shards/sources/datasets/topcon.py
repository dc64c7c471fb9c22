"""Private Topcon scans: 768 train, 256 validation and 256 test images.

train|val|test/*.png (or .jpg ...)      images, with or without class folders
train|val|test/*.fda, *.fds             raw exports, through `device`
"""

from __future__ import annotations

from collections import Counter

from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import IMAGE_EXTENSIONS, find_files
from shards.images.scan import Scan, SourceListing
from shards.sources.devices.device import list_device
from shards.sources.folders.folder import FOLLOW, check_folder, list_folder
from shards.sources.folders.published import compare_counts, require_scans

EXPECTED = {"train": 768, "val": 256, "test": 256}
RAW = (".fda", ".fds")


def list_topcon(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists image files, and the B-scans of raw exports."""
    root = check_folder(path)
    files = find_files(root, (*IMAGE_EXTENSIONS, *RAW), links)
    raw = any(file.lower().endswith(RAW) for file in files.paths)
    scans: list[Scan] = []
    notes: list[str] = []
    if any(file.lower().endswith(IMAGE_EXTENSIONS) for file in files.paths):
        images = list_folder(path, name or "topcon", links)
        scans += images.scans
        # With raw exports beside the images the notes are wrong: `list_folder` counts them as skipped files.
        notes += [] if raw else images.notes
    if raw:
        exports = list_device(path, name or "topcon", links, RAW)
        scans += exports.scans
        # `list_device` counts the images as skipped files.
        export_notes = [note for note in exports.notes if not note.startswith("passed over: ")]
        notes += [*export_notes, *files.skipped.lines(FOLLOW, named=False)]
    counts = Counter(scan.split or "no part" for scan in scans)
    return require_scans(scans, path, [*compare_counts(counts, EXPECTED, "images"), *notes])
