"""Duke DME (Chiu et al., Biomed Opt Express 2015): ten eyes with diabetic macular edema.

    Subject_01.mat ... Subject_10.mat      `images`, 496x768x61 (height, width, slices)

Layers and fluid, drawn by hand, are in the same files and are ignored.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from retfound_dist.files.folder_walk import Links
from shards.images.scan import Scan, SourceListing
from shards.sources.devices.device import list_file
from shards.sources.folders.published import (
    ignored_note,
    list_files,
    natural_order,
    require_scans,
    short_list,
    stem,
)

SUBJECTS, SLICES = 10, 61


def list_duke_dme(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every slice of every subject, all labelled DME."""
    root, sizes, skipped_notes = list_files(path, "Subject_*.mat files", links, (".mat",))
    files = sorted((file for file in sizes if re.fullmatch(r"Subject_\d+", stem(file))), key=natural_order)
    scans: list[Scan] = []
    notes = []
    for file in files:
        subject = stem(file)
        slices = list_file(root, file, sizes[file], name or "duke_dme", links=links)
        scans += [_with_names(scan, subject) for scan in slices]
        if len(slices) != SLICES:
            notes.append(f"{subject}: {sum(s.slice is not None for s in slices)} of {SLICES} slices")
    numbers = {int(re.sub(r"\D", "", stem(file))) for file in files}
    absent = [f"Subject_{number:02d}" for number in range(1, SUBJECTS + 1) if number not in numbers]
    if absent:
        notes.append(f"{len(absent)} of {SUBJECTS} subjects missing: {short_list(absent)}")
    notes += ignored_note([file for file in sizes if file not in files], "not Subject_<n>.mat")
    return require_scans(scans, path, [*notes, *skipped_notes])


def _with_names(scan: Scan, subject: str) -> Scan:
    """Returns the scan with the names and the label of the published set."""
    # The label is DME for all: the set has ten eyes with diabetic macular edema.
    fields: dict[str, Any] = {"patient": subject, "volume": subject, "label": "DME", "split": None}
    if scan.slice is None:
        return replace(scan, key=subject, origin=f"{subject}.mat", **fields)
    origin = f"{subject}.mat slice {scan.slice}"
    return replace(scan, key=f"{subject}_{scan.slice:03d}", origin=origin, **fields)
