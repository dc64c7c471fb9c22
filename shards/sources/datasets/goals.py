"""GOALS (MICCAI 2022 challenge, Fang et al.): circumpapillary scans.

    Train/Image/0001.png             1100x800 pixels (width x height)
    Train/Layer_Masks/0001.png       layers drawn by hand (also Layer_Mask, Layer_GT)
    Train_GC_GT.xlsx (or .csv)       columns ImgName (or ID), GC_Label: 1 is glaucoma
    Test/..., Validation/...         the same

The mask goes into the sample's JSON as `layer_mask_png` (base64 of a grey PNG of the scan's size), the
diagnosis as `label` (glaucoma, normal). There is one scan per person, so its number is the patient.
"""

from __future__ import annotations

import base64
import os
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from retfound_dist.config.schema import PackImage
from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import IMAGE_EXTENSIONS, read_file
from retfound_dist.formats.shard_set import SPLITS
from shards.images.preparation import decode, encode
from shards.images.scan import Scan, SourceListing
from shards.sources.datasets.label_tables import read_table
from shards.sources.datasets.octa500 import TABLES
from shards.sources.folders.published import compare_counts, image_scan, list_files, require_scans

EXPECTED = {"train": 100, "test": 100}
"""As in the corpus of 182,890 scans. The challenge also has 100 validation images."""
SIZE = (800, 1100)
_IMAGE = re.compile(r"(?:.*/)?(?P<part>[^/]*)/(?:Image|Images)/(?P<number>\w+)\.\w+", re.IGNORECASE)
_MASK = re.compile(r"(?P<before>.*)/Layer_?(?:Masks?|GT)/(?P<number>\w+)\.\w+", re.IGNORECASE)
_TABLE = re.compile(r"(?:.*/)?(?P<part>[A-Za-z]+)[^/]*GC_?GT[^/]*", re.IGNORECASE)


def list_goals(path: str, name: str = "", links: Links = "inside") -> SourceListing:
    """Lists every image, with its part, diagnosis and layers if the set has them."""
    root, sizes, skipped_notes = list_files(path, "images of GOALS", links, (*IMAGE_EXTENSIONS, *TABLES))
    masks = {(m["before"], m["number"]): file for file in sizes if (m := _MASK.fullmatch(file))}
    diagnoses = _diagnoses(root, [file for file in sizes if file.lower().endswith(TABLES)])
    scans: list[Scan] = []
    for file in sizes:
        match = _IMAGE.fullmatch(file)
        if match is None:
            continue
        part, number = SPLITS.get(match["part"].lower().split("-")[-1]), match["number"]
        mask = masks.get((os.path.dirname(os.path.dirname(file)), number))
        key = f"{match['part']}_{number}"
        fields: dict[str, Any] = {"split": part, "patient": key}
        scan = image_scan(root, file, sizes[file], name or "goals", key, links, **fields)
        # Excel drops leading zeros: the table has 1 for the file 0001.
        label = diagnoses.get((part, number.lstrip("0")))
        extra = partial(read_mask, root, mask, links) if mask else None
        scans.append(replace(scan, label=label, extra_fields=extra))
    counts = Counter(scan.split or "no part" for scan in scans)
    notes = compare_counts(counts, EXPECTED, "images")
    for annotation, missing in (
        ("a diagnosis (GC_GT table)", sum(s.label is None for s in scans)),
        ("a layer mask", sum(s.extra_fields is None for s in scans)),
    ):
        notes += [f"{missing:,} images without {annotation}"] if missing else []
    return require_scans(scans, path, [*notes, *skipped_notes])


def read_mask(root: str, file: str, links: Links = "inside") -> dict[str, str]:
    """Returns the layer mask as a JSON field; DataError if it does not have the size of the scans."""
    pixels = decode(read_file(root, file, links))
    if pixels.shape != SIZE:
        raise DataError(f"has a layer mask of shape {pixels.shape}, not {SIZE}")
    return {"layer_mask_png": base64.b64encode(encode(pixels, PackImage(format="png"))).decode()}


def _diagnoses(root: str, tables: list[str]) -> dict[tuple[str | None, str], str]:
    """Returns (part, number without leading zeros) -> label."""
    labels: dict[tuple[str | None, str], str] = {}
    for table in tables:
        match = _TABLE.fullmatch(table)
        part = SPLITS.get(match["part"].lower()) if match else None
        for fields in read_table(os.path.join(root, table), "imgname|id", "gclabel|gcpred|label"):
            number = re.sub(r"\.\w+$", "", fields.get("imgname") or fields.get("id") or "").lstrip("0")
            diagnosis = fields.get("gclabel") or fields.get("gcpred") or fields.get("label")
            if number and diagnosis in ("0", "1"):
                labels[(part, number)] = "glaucoma" if diagnosis == "1" else "normal"
    return labels
