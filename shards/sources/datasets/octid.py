"""OCTID (Gholami et al. 2018): five classes of fovea-centred B-scans, 500x750, no patient in the names.

    NORMAL/NORMAL1.jpeg, MH/..., AMRD/..., CSR/..., DR/...      as downloaded: a folder (or archive) per class
    train|val|test/<class>/*.jpg                                the split of RETFound's authors
    NORMAL1.jpeg ...                                            all in one folder: label from the name

Names of folders vary from copy to copy (ANORMAL, Normal, AMD, CSCR ...). The labels are always the same.
Published counts: arXiv 1812.07056, table 1.
"""

from __future__ import annotations

import re

from retfound_dist.files.folder_walk import Links
from retfound_dist.formats.shard_set import SPLITS
from shards.images.scan import Scan, SourceListing, unique_keys
from shards.sources.folders.published import (
    compare_counts,
    count_labels,
    ignored_note,
    image_scan,
    list_files,
    require_scans,
    stem,
)

PUBLISHED = {"NORMAL": 206, "MH": 102, "AMRD": 55, "CSR": 102, "DR": 107}
_SPELLINGS = {
    "NORMAL": r"a?normal|no",
    "MH": r"b?mh|macular_?hole",
    "AMRD": r"c?amrd|amd|armd",
    "CSR": r"d?csr|csc|cscr",
    "DR": r"e?dr|diabetic_?retinopathy",
}


def list_octid(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every image with a label from its folder or its name. A note names the other images."""
    root, sizes, skipped_notes = list_files(path, "images of OCTID", links)
    labels = {file: label_of(file) for file in sizes}
    files = [file for file in sizes if labels[file]]
    scans: list[Scan] = []
    for file, key in zip(files, unique_keys(files), strict=True):
        split = next((SPLITS[part.lower()] for part in file.split("/")[:-1] if part.lower() in SPLITS), None)
        fields = {"label": labels[file], "split": split}
        scans.append(image_scan(root, file, sizes[file], name or "octid", key, links, **fields))
    others = [file for file in sizes if not labels[file]]
    notes = compare_counts(count_labels(scans), PUBLISHED, "images")
    return require_scans(
        scans, path, [*notes, *ignored_note(others, "no class in folder or name"), *skipped_notes]
    )


def label_of(file: str) -> str | None:
    """Returns the class from the nearest folder, else from the file's name up to its number."""
    *folders, _ = file.split("/")
    # The nearest folder first, because a set may be below a folder with the name of a class.
    words = [*reversed(folders), re.sub(r"[\s_()-]*\d.*$", "", stem(file))]
    for word in words:
        for label, spelling in _SPELLINGS.items():
            if re.fullmatch(spelling, word.strip().lower().replace(" ", "_")):
                return label
    return None
