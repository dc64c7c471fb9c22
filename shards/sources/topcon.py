"""Topcon scans of a group's own: 768 train, 256 validation and 256 test images.

train|val|test/*.png (or .jpg ...)      images, with or without class folders
train|val|test/*.fda, *.fds             raw exports, through `device`
"""

from __future__ import annotations

from collections import Counter

from shards.record import Listing
from shards.sources.device import list_device
from shards.sources.folder import EXTENSIONS, check_folder, list_folder, walk
from shards.sources.published import compare_counts, usable

EXPECTED = {"train": 768, "val": 256, "test": 256}
RAW = (".fda", ".fds")


def list_topcon(path: str, name: str = "") -> Listing:
    """Images where there are any, and the B-scans of raw exports."""
    root = check_folder(path)
    scans = list(list_folder(path, name or "topcon")) if any(True for _ in walk(root, EXTENSIONS)) else []
    notes: list[str] = []
    if any(True for _ in walk(root, RAW)):
        raw = list_device(path, name or "topcon", RAW)
        scans += raw.scans
        notes = list(raw.notes)
    counts = Counter(scan.split or "no part" for scan in scans)
    return usable(scans, path, [*compare_counts(counts, EXPECTED, "images"), *notes])
