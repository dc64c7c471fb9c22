"""OCTA-500 (Li et al. 2024, doi 10.1016/j.media.2024.103092): the OCT volumes of 500 eyes.

    OCTA_6mm/OCT/10001 ... 10300/1.bmp ... 400.bmp      640x400 pixels (height x width)
    OCTA_3mm/OCT/10301 ... 10500/1.bmp ... 304.bmp      640x304
    Text labels.xlsx (or .csv)                           columns ID, OS/OD (or Eye), Disease; anywhere above

There is one eye per person, so each volume is a patient. Projection maps and labels of vessels are ignored.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import replace

from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import IMAGE_EXTENSIONS
from shards.images.scan import Scan, SourceListing
from shards.sources.datasets.label_tables import read_table
from shards.sources.devices.volume import eye_of
from shards.sources.folders.published import image_scan, list_files, natural_order, require_scans, short_list

VOLUMES = {"6mm": (range(10001, 10301), 400), "3mm": (range(10301, 10501), 304)}
"""Field -> (numbers of its volumes, slices per volume)."""
TABLES = (".xlsx", ".csv")
_SLICE = re.compile(r"(?:.*/)?OCT/(?P<volume>\d{5})/(?P<slice>\d+)\.\w+", re.IGNORECASE)


def list_octa500(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every B-scan of the OCT folders, with the disease if there is a table of labels."""
    root, sizes, skipped_notes = list_files(path, "slices of OCTA-500", links, (*IMAGE_EXTENSIONS, *TABLES))
    # By number, because as text slice 10 would come before slice 2.
    slices = {file: match for file in sorted(sizes, key=natural_order) if (match := _SLICE.fullmatch(file))}
    labels, notes = _labels(root, [file for file in sizes if file.lower().endswith(TABLES)])
    scans: list[Scan] = []
    for file, match in slices.items():
        volume = match["volume"]
        key = f"{volume}_{int(match['slice']):03d}"
        label, eye = labels.get(int(volume), (None, None))
        fields = {"label": label, "eye": eye, "patient": volume, "volume": volume}
        scan = image_scan(root, file, sizes[file], name or "octa500", key, links, **fields)
        scans.append(replace(scan, slice=int(match["slice"])))
    return require_scans(scans, path, [*missing_slices(scans), *notes, *skipped_notes])


def missing_slices(scans: list[Scan]) -> list[str]:
    """Returns notes on missing volumes, on volumes that lack slices, and on unknown volumes."""
    slices_of_volume: dict[int, set[int | None]] = defaultdict(set)
    for scan in scans:
        slices_of_volume[int(scan.volume or 0)].add(scan.slice)
    notes = []
    for field, (numbers, count) in VOLUMES.items():
        missing = [str(number) for number in numbers if number not in slices_of_volume]
        if missing:
            names = short_list(missing)
            notes.append(f"OCTA_{field}: {len(missing)} of {len(numbers)} volumes missing: {names}")
        all_slices = set(range(1, count + 1))
        incomplete = [n for n in numbers if n in slices_of_volume and slices_of_volume[n] != all_slices]
        if incomplete:
            names = short_list([f"{n} ({len(slices_of_volume[n])} of {count})" for n in incomplete])
            notes.append(f"OCTA_{field}: {len(incomplete)} volumes without all their slices: {names}")
    published = {number for numbers, _ in VOLUMES.values() for number in numbers}
    unknown = sorted(str(number) for number in slices_of_volume.keys() - published)
    return notes + ([f"volumes that OCTA-500 does not have: {short_list(unknown)}"] if unknown else [])


def _labels(root: str, tables: list[str]) -> tuple[dict[int, tuple[str | None, str | None]], list[str]]:
    """Returns volume -> (disease, eye) from every table that has the columns, and notes."""
    labels: dict[int, tuple[str | None, str | None]] = {}
    for table in tables:
        for fields in read_table(os.path.join(root, table), "id", "disease"):
            eye = fields.get("osod") or fields.get("eye") or ""
            if fields.get("id", "").isdigit() and fields.get("disease"):
                labels[int(fields["id"])] = (fields["disease"], eye_of(eye))
    if not labels:
        return {}, ["no table of labels (Text labels.xlsx): the images get no label"]
    return labels, [] if len(labels) >= 500 else [f"labels of {len(labels)} of 500 volumes"]
