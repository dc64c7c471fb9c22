"""OCTDL (Kulyabin et al. 2024, doi 10.1038/s41597-024-03182-7): 2,064 B-scans of seven conditions.

    OCTDL/AMD/amd_1047099_1.jpg ...      <class>/<class>_<patient>_<n>.jpg

The patient is in the name. A few pictures are in the set under several patients. These patients are joined
into one, so that a split by patient cannot put the same picture into two parts. A `manifest.csv` beside the
classes may join more of them (copies of the set without duplicates have such a file).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import read_file
from retfound_dist.images import jpeg
from retfound_dist.listing.image_lists import find_listing, read_listing
from shards.images.scan import Scan, SourceListing, unique_keys
from shards.sources.folders.folder import check_folder
from shards.sources.folders.published import (
    compare_counts,
    count_labels,
    ignored_note,
    image_scan,
    list_files,
    require_scans,
)

PUBLISHED = {"AMD": 1231, "DME": 147, "ERM": 155, "NO": 332, "RAO": 22, "RVO": 101, "VID": 76}
_NAME = re.compile(r"(?:.*/)?(?P<label>[a-z]+)_(?P<patient>\d+)_(?P<slice>\d+)\.\w+", re.IGNORECASE)


def list_octdl(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every image named as in the set. Patients that share a picture are joined."""
    list_path = find_listing(check_folder(path))
    used = (os.path.basename(list_path),) if list_path else ()
    root, sizes, skipped_notes = list_files(path, "images of OCTDL", links, used=used)
    named = {file: match for file in sizes if (match := _NAME.fullmatch(file))}
    files = [file for file, match in named.items() if match["label"].upper() in PUBLISHED]
    patients = {file: named[file]["patient"] for file in files}
    pictures = [(patients[file], digest) for file in files if (digest := _picture_digest(root, file, links))]
    listed, list_notes = _listed_patients(list_path, patients)
    joined = join_patients(pictures + listed)
    scans: list[Scan] = []
    for file, key in zip(files, unique_keys(files), strict=True):
        match = named[file]
        label = match["label"].upper()
        scan = image_scan(root, file, sizes[file], name or "octdl", key, links, label=label)
        patient = patients[file]
        scans.append(replace(scan, patient=joined.get(patient, patient), slice=int(match["slice"])))
    joined_count = len(set(patients.values()) - {scan.patient for scan in scans})
    notes = compare_counts(count_labels(scans), PUBLISHED, "images")
    if joined_count:
        notes.append(f"{joined_count:,} patients joined with others: same picture, or one patient in a list")
    others = [file for file in sizes if file not in patients]
    notes += ignored_note(others, "not named <class>_<patient>_<n>")
    return require_scans(scans, path, [*list_notes, *notes, *skipped_notes])


def join_patients(links: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Maps each patient to one name for all who are connected by something shared, also through others.

    The name is the first in alphabetical order. `links`: (patient, what it may share with others: the digest
    of a picture, or its patient in the list).
    """
    patients_of_link: dict[str, set[str]] = defaultdict(set)
    for patient, link in links:
        patients_of_link[link].add(patient)
    parent: dict[str, str] = {}

    def find_first(patient: str) -> str:
        while parent.get(patient, patient) != patient:
            patient = parent[patient]
        return patient

    for patients in patients_of_link.values():
        # The first by name, because the order of a listing differs from disk to disk.
        first, *others = sorted({find_first(patient) for patient in patients})
        parent.update(dict.fromkeys(others, first))
    return {patient: find_first(patient) for patients in patients_of_link.values() for patient in patients}


def _listed_patients(
    list_path: str | None, patients: Mapping[str, str]
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Returns (patient in the file's name, patient in the list) of all listed files, and the list's notes."""
    if list_path is None:
        return [], ()
    listing = read_listing(list_path)
    pairs = [
        (patients[file], f"listed {row.patient}")
        for file, row in listing.rows.items()
        if file in patients and row.patient is not None
    ]
    return pairs, listing.notes


def _picture_digest(root: str, file: str, links: Links) -> str | None:
    """Returns a digest of the compressed picture without its metadata; None if it cannot be read."""
    try:
        data = read_file(root, file, links)
        # Without metadata, because a copy with other metadata is the same picture.
        return hashlib.sha256(jpeg.strip_metadata(data) if jpeg.is_jpeg(data) else data).hexdigest()
    except (DataError, OSError, ValueError):
        return None  # packing reads the file again and reports the reason
