"""OCT2017 (Kermany et al. 2018, doi 10.17632/rscbjbr9sj): four classes, Heidelberg Spectralis.

    OCT2017/train/CNV/CNV-1016042-1.jpeg     train|test(|val)/<class>/<class>-<patient>-<n>.jpeg

Version 3 has 108,309 images in train and 1,000 in test. Some releases have patients in both parts. Their
published parts are not used; split.fractions can divide the set by patient.
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
    root, sizes, skipped_notes = list_files(path, "images of OCT2017", links)
    named = {file: match for file in sizes if (match := _NAME.fullmatch(file))}
    scans: list[Scan] = []
    for file, key in zip(named, unique_keys(list(named)), strict=True):
        match = named[file]
        split = next((SPLITS[p.lower()] for p in file.split("/")[:-1] if p.lower() in SPLITS), None)
        fields = {"label": match["label"].upper(), "patient": match["patient"], "split": split}
        scan = image_scan(root, file, sizes[file], name or "kermany", key, links, **fields)
        scans.append(replace(scan, slice=int(match["slice"])))
    counts = Counter(scan.split or "no part" for scan in scans)
    notes = compare_counts(counts, PUBLISHED, "images")
    # With a patient in train and in test every score would be too high.
    scans, part_notes = _drop_mixed_parts(scans)
    notes += part_notes + ignored_note(
        [f for f in sizes if f not in named], "not named <class>-<patient>-<n>"
    )
    return require_scans(scans, path, [*notes, *skipped_notes])


def _drop_mixed_parts(scans: list[Scan]) -> tuple[list[Scan], list[str]]:
    """Returns the scans without their parts, and a note, if a patient is in more than one part."""
    parts_of_patient: dict[str | None, set[str | None]] = defaultdict(set)
    for scan in scans:
        parts_of_patient[scan.patient].add(scan.split)
    mixed = sum(len(parts) > 1 for parts in parts_of_patient.values())
    if not mixed:
        return scans, []
    note = (
        f"{mixed:,} patients are in more than one published part: these parts are not used, split by patient"
    )
    return [replace(scan, split=None) for scan in scans], [note]
