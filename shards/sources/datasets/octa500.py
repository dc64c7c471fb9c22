"""OCTA-500 (Li et al. 2024, doi 10.1016/j.media.2024.103092): the OCT volumes of 500 eyes.

    OCTA_6mm/OCT/10001 ... 10300/1.bmp ... 400.bmp      640x400 pixels (height x width)
    OCTA_3mm/OCT/10301 ... 10500/1.bmp ... 304.bmp      640x304
    Text labels.xlsx (or .csv)                           columns ID, OS/OD (or Eye), Disease; anywhere above

One eye a person, so each volume is a patient. Projection maps and labels of vessels are left aside.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import replace

from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import IMAGE_ENDS
from shards.images.scan import Scan, SourceListing
from shards.sources.datasets.label_tables import read_table
from shards.sources.devices.volume import eye_of
from shards.sources.folders.published import image_scan, list_files, natural_order, require_scans, short_list

VOLUMES = {"6mm": (range(10001, 10301), 400), "3mm": (range(10301, 10501), 304)}
"""Field -> (numbers of its volumes, slices a volume)."""
TABLES = (".xlsx", ".csv")
_SLICE = re.compile(r"(?:.*/)?OCT/(?P<volume>\d{5})/(?P<slice>\d+)\.\w+", re.IGNORECASE)


def list_octa500(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Every B-scan of the OCT folders, with the disease where the table of labels is there."""
    root, sizes, passed = list_files(path, "slices of OCTA-500", links, (*IMAGE_ENDS, *TABLES))
    # By number: sorted as text, slice 10 would come before slice 2.
    slices = {file: match for file in sorted(sizes, key=natural_order) if (match := _SLICE.fullmatch(file))}
    labels, notes = _labels(root, [file for file in sizes if file.lower().endswith(TABLES)])
    scans: list[Scan] = []
    for file, match in slices.items():
        volume = match["volume"]
        key = f"{volume}_{int(match['slice']):03d}"
        label, eye = labels.get(int(volume), (None, None))
        known = {"label": label, "eye": eye}
        scan = image_scan(root, file, sizes[file], name or "octa500", key, links, **known)
        scans.append(replace(scan, patient=volume, volume=volume, slice=int(match["slice"])))
    return require_scans(scans, path, [*missing_slices(scans), *notes, *passed])


def missing_slices(scans: list[Scan]) -> list[str]:
    """Notes on missing volumes, on volumes that lack slices, and on unknown volumes."""
    slices_of_volume: dict[int, set[int | None]] = defaultdict(set)
    for scan in scans:
        slices_of_volume[int(scan.volume or 0)].add(scan.slice)
    notes = []
    for field, (numbers, count) in VOLUMES.items():
        absent = [str(number) for number in numbers if number not in slices_of_volume]
        short = [
            n for n in numbers if n in slices_of_volume and slices_of_volume[n] != set(range(1, count + 1))
        ]
        if absent:
            some = f"{len(absent)} of {len(numbers)} volumes missing: {short_list(absent)}"
            notes.append(f"OCTA_{field}: {some}")
        if short:
            lacking = [f"{n} ({len(slices_of_volume[n])} of {count})" for n in short]
            notes.append(
                f"OCTA_{field}: {len(short)} volumes without all their slices: {short_list(lacking)}"
            )
    known = {number for numbers, _ in VOLUMES.values() for number in numbers}
    strange = sorted(str(number) for number in slices_of_volume.keys() - known)
    return notes + ([f"volumes that OCTA-500 does not have: {short_list(strange)}"] if strange else [])


def _labels(root: str, tables: list[str]) -> tuple[dict[int, tuple[str | None, str | None]], list[str]]:
    """Volume -> (disease, eye) from every table that has the columns."""
    known: dict[int, tuple[str | None, str | None]] = {}
    for table in tables:
        for fields in read_table(os.path.join(root, table), "id", "disease"):
            eye = fields.get("osod") or fields.get("eye") or ""
            if fields.get("id", "").isdigit() and fields.get("disease"):
                known[int(fields["id"])] = (fields["disease"], eye_of(eye))
    if not known:
        return {}, ["no table of labels (Text labels.xlsx): the images have no disease"]
    counts = Counter(disease for disease, _ in known.values())
    return known, [] if sum(counts.values()) >= 500 else [f"labels of {len(known)} of 500 volumes"]
