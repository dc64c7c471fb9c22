"""Assigns each image of a labelled set to a part: from a file, from the set, or by our own split.

A split file is a list with the columns key and part, and maybe more, such as the split.csv of every
evaluation. It takes precedence over the split of the set. Without either, the patients are split. Where no
patient is known, the volumes are split, else the images (retfound_dist/listing/split_units.py).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError, StorageError
from retfound_dist.evaluate.data.set_layouts import PARTS, LabelledImage
from retfound_dist.io import storage
from retfound_dist.listing import split_units
from retfound_dist.listing.image_lists import read_split_file
from retfound_dist.listing.patient_split import split_by_unit

_MAX_NAMED = 3


def split_items(
    items: Sequence[LabelledImage], config: EvalData, readable: Callable[[LabelledImage], bool]
) -> tuple[str, tuple[LabelledImage, ...]]:
    """Assigns parts. Returns (`LabelledSet.split_source`, the items with their part).

    DataError where `data.split_file` does not fit. An item that is not in the file and not `readable` gets no
    part: the split.csv of an evaluation leaves unreadable images out.
    """
    if config.split_file and storage.exists(config.split_file):
        return "file", _apply_split_file(items, read_split(config.split_file), config, readable)
    return assign_parts(items, config.fractions, config.split_seed, config.path, config.unknown_patient)


def assign_parts(
    items: Sequence[LabelledImage],
    fractions: tuple[float, float, float],
    seed: int,
    where: str,
    rule: str = split_units.KEEP_VOLUMES,
) -> tuple[str, tuple[LabelledImage, ...]]:
    """Assigns parts without a split file. Returns (`LabelledSet.split_source`, the items with their part).

    The split of the set itself is used where it has one. If it has no val part, a part of train becomes val.
    """
    shares = dict(zip(PARTS, fractions, strict=True))
    with_split = sum(item.split is not None for item in items)
    if 0 < with_split < len(items):
        unassigned = next(item.key for item in items if item.split is None)
        raise DataError(
            f"{where}: {len(items) - with_split} images have no split though others have one, first "
            f"{unassigned}: give a split for every image, or for none"
        )
    if not with_split:
        return split_units.least_safe_kind(unit_kinds(items, rule)), _divide_by_unit(
            items, shares, seed, rule
        )
    parts_present = {item.split for item in items}
    if "val" not in parts_present and "train" in parts_present and shares["val"] > 0:
        train = [item for item in items if item.split == "train"]
        # The test part of the set stays as it is: only train is split.
        shares["test"] = 0.0
        part = {item.key: item.split for item in _divide_by_unit(train, shares, seed, rule)}
        items = [replace(item, split=part.get(item.key, item.split)) for item in items]
    return "given", tuple(items)


def unit_kinds(items: Sequence[LabelledImage], rule: str) -> dict[str, int]:
    """Number of images by the kind of their unit: `patient`, `volume`, `folder` or `image`."""
    return dict(Counter(unit_of(item, rule)[0] for item in items))


def unit_of(item: LabelledImage, rule: str) -> split_units.Unit:
    """The patient, folder, volume or image that our own split keeps in one part."""
    return split_units.unit_of(item.key, item.patient, item.group, item.volume, rule)


def read_split(url: str) -> dict[str, str]:
    """Key -> part of a split file; DataError where the file is not a split file."""
    name, parts = f"data.split_file={url}", dict[str, str]()
    try:
        rows = list(read_split_file(url))
    except (StorageError, DataError) as error:
        raise DataError(f"data.split_file: {error}") from error
    for line, key, part in rows:
        if part not in PARTS:
            raise DataError(f"{name} line {line}: part {part!r} is not one of {', '.join(PARTS)}")
        if parts.setdefault(key, part) != part:
            raise DataError(f"{name} line {line}: {key} is in two parts; choose one")
    return parts


def write_split(url: str, items: Sequence[LabelledImage]) -> None:
    """Writes each item's part, the whole file or nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("key", "part"), *((item.key, item.split) for item in items)])
    storage.write_text(url, text.getvalue())


def _apply_split_file(
    items: Sequence[LabelledImage],
    parts: dict[str, str],
    config: EvalData,
    readable: Callable[[LabelledImage], bool],
) -> tuple[LabelledImage, ...]:
    """The items with the parts of data.split_file; DataError where that does not fit the set."""
    keys = {item.key for item in items}
    absent_keys = [key for key in parts if key not in keys]
    unassigned = [item for item in items if item.key not in parts]
    faults = []
    if absent_keys:
        faults.append(f"{len(absent_keys)} of its images are not in the set ({_first_names(absent_keys)})")
    # The split.csv of an evaluation leaves unreadable images out, so only readable ones count as missing.
    if any(map(readable, unassigned)):
        names = _first_names([item.key for item in unassigned])
        faults.append(f"{len(unassigned)} images of the set are not in it ({names})")
    if faults:
        raise DataError(
            f"data.split_file={config.split_file} does not fit {config.path}: {'; '.join(faults)}: "
            "give the split file of this set, or another name to make a new split"
        )
    return tuple(replace(item, split=parts.get(item.key)) for item in items)


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")


def _divide_by_unit(
    items: Sequence[LabelledImage], shares: dict[str, float], seed: int, rule: str
) -> tuple[LabelledImage, ...]:
    """The items with their new parts; all items of one unit go to the same part."""
    units = [unit_of(item, rule) for item in items]
    # Patients and images have no prefix, as in earlier versions, so that their splits stay the same.
    names = [name if kind in ("patient", "image") else f"{kind} {name}" for kind, name in units]
    parts = split_by_unit([item.label for item in items], names, shares, seed)
    return tuple(replace(item, split=part) for item, part in zip(items, parts, strict=True))
