"""OCT2017 (Kermany et al. 2018, doi 10.17632/rscbjbr9sj): four classes, Heidelberg Spectralis.

    OCT2017/train/CNV/CNV-1016042-1.jpeg     train|test(|val)/<class>/<class>-<patient>-<n>.jpeg

Counts of version 3: 108,309 in train and 1,000 in test. Some releases have patients on both sides; the
published parts are then left out (and split.fractions may divide the set by patient).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace

from retfound_dist.files.folder_walk import Links
from retfound_dist.formats.shard_set import SPLITS
from shards.images.scan import Scan, SourceListing, unique_keys
from shards.sources.folders.published import (
    compare_counts,
    ignored_note,
    image_scan,
    list_files,
    require_scans,
)

PUBLISHED = {"train": 108_309, "test": 1_000}
_NAME = re.compile(
    r"(?:.*/)?(?P<label>CNV|DME|DRUSEN|NORMAL)-(?P<patient>\d+)-(?P<slice>\d+)\.\w+", re.IGNORECASE
)


def list_kermany(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every image named as in the set. Published parts are kept only if they share no patient."""
    root, sizes, passed = list_files(path, "images of OCT2017", links)
    named = {file: match for file in sizes if (match := _NAME.fullmatch(file))}
    scans: list[Scan] = []
    for file, key in zip(named, unique_keys(list(named)), strict=True):
        match = named[file]
        split = next((SPLITS[p.lower()] for p in file.split("/")[:-1] if p.lower() in SPLITS), None)
        known = {"label": match["label"].upper(), "patient": match["patient"], "split": split}
        scan = image_scan(root, file, sizes[file], name or "kermany", key, links, **known)
        scans.append(replace(scan, slice=int(match["slice"])))
    counts = Counter(scan.split or "no part" for scan in scans)
    notes = compare_counts(counts, PUBLISHED, "images")
    # Before a part is trusted: with a patient in train and in test every score would be too good.
    scans, straddling = _without_straddling(scans)
    notes += straddling + ignored_note(
        [f for f in sizes if f not in named], "not named <class>-<patient>-<n>"
    )
    return require_scans(scans, path, [*notes, *passed])


def _without_straddling(scans: list[Scan]) -> tuple[list[Scan], list[str]]:
    parts: dict[str | None, set[str | None]] = defaultdict(set)
    for scan in scans:
        parts[scan.patient].add(scan.split)
    both = sum(len(patient_parts) > 1 for patient_parts in parts.values())
    if not both:
        return scans, []
    note = f"{both:,} patients are in more than one published part: the parts are not used, split by patient"
    return [replace(scan, split=None) for scan in scans], [note]
