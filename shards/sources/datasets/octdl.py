"""OCTDL (Kulyabin et al. 2024, doi 10.1038/s41597-024-03182-7): 2,064 B-scans of seven conditions.

    OCTDL/AMD/amd_1047099_1.jpg ...      <class>/<class>_<patient>_<n>.jpg

The patient is in the name. The same picture stands under several patients here and there: those
patients are joined into one, so that a split by patient cannot have it on both sides. A `manifest.csv`
beside the classes may join more of them (copies whose duplicates have been removed bring one).
"""

from __future__ import annotations

import hashlib
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
    root, sizes, passed = list_files(path, "images of OCTDL", links)
    named = {file: match for file in sizes if (match := _NAME.fullmatch(file))}
    files = [file for file, match in named.items() if match["label"].upper() in PUBLISHED]
    shared = [(named[file]["patient"], digest) for file in files if (digest := _picture(root, file, links))]
    listed, list_notes = _listed(root, {file: named[file]["patient"] for file in files})
    joined = join_patients(shared + listed)
    scans: list[Scan] = []
    for file, key in zip(files, unique_keys(files), strict=True):
        match = named[file]
        label = match["label"].upper()
        scan = image_scan(root, file, sizes[file], name or "octdl", key, links, label=label)
        patient = match["patient"]
        scans.append(replace(scan, patient=joined.get(patient, patient), slice=int(match["slice"])))
    apart = len({named[file]["patient"] for file in files} - {scan.patient for scan in scans})
    notes = compare_counts(count_labels(scans), PUBLISHED, "images")
    notes += [f"{apart:,} patients joined to others that share a picture with them"] if apart else []
    stray = [file for file in sizes if file not in set(files)]
    notes += ignored_note(stray, "not named <class>_<patient>_<n>")
    return require_scans(scans, path, [*list_notes, *notes, *passed])


def join_patients(pictures: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Patient -> the first by name of all that share pictures with it, directly or through others."""
    owners: dict[str, set[str]] = defaultdict(set)
    for patient, digest in pictures:
        owners[digest].add(patient)
    parent: dict[str, str] = {}

    def find(patient: str) -> str:
        while parent.get(patient, patient) != patient:
            patient = parent[patient]
        return patient

    for patients in owners.values():
        # The first by name and not by order of listing, so that every disk gives the same patient.
        first, *rest = sorted({find(patient) for patient in patients})
        parent.update(dict.fromkeys(rest, first))
    return {patient: find(patient) for patients in owners.values() for patient in patients}


def _listed(root: str, patients: Mapping[str, str]) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(patient in the name, patient in the listing) of every file that a listing names; its notes."""
    where = find_listing(root)
    if where is None:
        return [], ()
    listed = read_listing(where)
    pairs = [
        (patients[file], f"listed {row.patient}")
        for file, row in listed.rows.items()
        if file in patients and row.patient is not None
    ]
    return pairs, listed.notes


def _picture(root: str, file: str, links: Links) -> str | None:
    """Digest of the compressed picture without its metadata; None where it cannot be read."""
    try:
        data = read_file(root, file, links)
        # Without metadata: a copy that another program has tagged is still the same picture.
        return hashlib.sha256(jpeg.without_metadata(data) if jpeg.is_jpeg(data) else data).hexdigest()
    except (DataError, OSError, ValueError):
        return None  # packing reads it again and says why
