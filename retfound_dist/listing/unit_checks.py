"""Checks that a set can be scored by volume, eye or patient, before its images are decoded.

Shapes: N images, U units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from retfound_dist.errors import DataError
from retfound_dist.listing.unit_names import (
    EYE,
    IMAGE,
    PATIENT,
    UNITS,
    VOLUME,
    ImageOrigin,
    UnitIndex,
    index_units,
)

_NEEDED_COLUMNS = {VOLUME: "the volume", EYE: "patient and eye", PATIENT: "the patient"}
_MAX_NAMED = 3


class LabelledOrigin(ImageOrigin, Protocol):
    """An image with its label and part."""

    @property
    def label(self) -> str:
        """The class's name."""

    @property
    def split(self) -> str | None:
        """`train`, `val` or `test`."""


def check_set(items: Sequence[LabelledOrigin], unit: str, where: str, allow_leak: bool) -> tuple[str, ...]:
    """Check that a set can be scored by `unit`; returns notes about images whose unit is not known.

    `where`: the set's name in messages. `allow_leak`: a unit may be in two parts of the split. Raises
    DataError where the set cannot be scored by this unit.
    """
    if unit == IMAGE or not items:
        return ()
    index = index_units(items, unit)
    notes = check_known(index, where)
    keys = [item.key for item in items]
    check_labels_agree(index, keys, [item.label for item in items], where)
    if not allow_leak:
        check_whole_units(index, keys, [item.split for item in items], where)
    return notes


def check_known(index: UnitIndex, where: str) -> tuple[str, ...]:
    """Returns a note about images whose unit is not known, or nothing where all are known.

    `where`: the set's name in messages. Raises DataError where the unit of no image is known.
    """
    by_kind: dict[str, list[str]] = defaultdict(list)
    for kind, key in index.fallbacks:
        by_kind[kind].append(key)
    total, unknown = len(index.unit_of_image_N), len(index.fallbacks)
    if unknown and unknown == total:
        smaller = 'data.unit="volume"' if by_kind[VOLUME] else 'data.unit="image"'
        raise DataError(
            f"{where}: data.unit={index.unit!r} needs {_NEEDED_COLUMNS[index.unit]} of each image, but none "
            f"of the {total:,} images has it: give a list with such columns, or score by {smaller}"
        )
    scored_how = {VOLUME: "with their volume", IMAGE: "alone"}
    clauses = [
        f"{len(keys):,} {scored_how[kind]} ({_first_keys(keys)})" for kind, keys in sorted(by_kind.items())
    ]
    if not clauses:
        return ()
    return (
        f"the {index.unit} of {unknown:,} of {total:,} images is not known; they are scored "
        f"{', '.join(clauses)}",
    )


def check_labels_agree(index: UnitIndex, keys: Sequence[str], labels: Sequence[str], where: str) -> None:
    """Check that all images of a unit have the same label, because a unit is scored against one label.

    `keys` and `labels` (N,): those of each image. `where`: the set's name in messages. Raises DataError that
    names the first unit with two labels and an image of each.
    """
    first_image_of_unit: dict[int, int] = {}
    disagreements: dict[int, tuple[int, int]] = {}
    for image, unit in enumerate(index.unit_of_image_N.tolist()):
        first_image = first_image_of_unit.setdefault(unit, image)
        if labels[first_image] != labels[image]:
            disagreements.setdefault(unit, (first_image, image))
    if not disagreements:
        return
    unit, (one, other) = min(disagreements.items())
    smaller_units = " or ".join(f'"{name}"' for name in UNITS[: UNITS.index(index.unit)][::-1])
    count = len(disagreements)
    subject = f"1 {index.unit} has" if count == 1 else f"{count:,} {index.unit}s have"
    raise DataError(
        f"{where}: {subject} images of two classes, first {index.names[unit]!r} with {labels[one]} "
        f"({keys[one]}) and {labels[other]} ({keys[other]}): correct the labels, give one label for each "
        f"{index.unit} in data.labels, or score smaller units with data.unit = {smaller_units}"
    )


def check_whole_units(index: UnitIndex, keys: Sequence[str], parts: Sequence[str | None], where: str) -> None:
    """Check that all images of a unit are in the same part of the split.

    `keys` and `parts` (N,): those of each image. `where`: the set's name in messages. Raises DataError that
    names a unit in two parts and an image in each.
    """
    first_image_of_unit: dict[int, int] = {}
    for image, unit in enumerate(index.unit_of_image_N.tolist()):
        first_image = first_image_of_unit.setdefault(unit, image)
        if parts[first_image] != parts[image]:
            raise DataError(
                f"{where}: {index.unit} {index.names[unit]!r} is in two parts of the split, "
                f"{parts[first_image]} ({keys[first_image]}) and {parts[image]} ({keys[image]}), so it "
                'cannot be scored as one: fix the split, or score with data.unit="image"'
            )


def _first_keys(keys: Sequence[str]) -> str:
    """The first keys, for a message: `a, b, c, ...`."""
    return ", ".join(keys[:_MAX_NAMED]) + (", ..." if len(keys) > _MAX_NAMED else "")
