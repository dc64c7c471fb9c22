"""Decides which images a split keeps together: those of a patient, else of a folder or volume, else each
alone.

Packing and evaluation use the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

KINDS = ("patient", "volume", "folder", "image")
"""Kinds of units that are kept together, the safest first."""
KEEP_VOLUMES, BY_IMAGE = "volume", "image"
"""Values of `unknown_patient`."""
Unit = tuple[str, str]
"""(kind, name)"""


def unit_of(
    key: str, patient: str | None, group: str | None, volume: str | None, unknown_patient: str
) -> Unit:
    """The unit that an image belongs to.

    `group`: a folder that may have several volumes. `unknown_patient`: `volume` keeps folders and volumes
    together where the patient is not known, `image` treats every image as a unit.
    """
    if patient is not None:
        return "patient", patient
    # The folder before the volume: it may hold both eyes of one patient, and two volumes of it must not be
    # parted.
    if unknown_patient == KEEP_VOLUMES and group is not None:
        return "folder", group
    if unknown_patient == KEEP_VOLUMES and volume is not None:
        return "volume", volume
    return "image", key


def patients_of_units(rows: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """Volume or folder -> its patient, where exactly one is known. `rows`: (volume or folder, patient)."""
    # Lists often name the patient of some slices only. The others of the volume must go to the same part.
    patients_of_unit: dict[str, set[str]] = {}
    for unit, patient in rows:
        if unit is not None and patient is not None:
            patients_of_unit.setdefault(unit, set()).add(patient)
    return {unit: next(iter(patients)) for unit, patients in patients_of_unit.items() if len(patients) == 1}


def least_safe_kind(counts: Mapping[str, int]) -> str:
    """The kind that a mixed split is named after: the least safe one with any image in it."""
    return max((kind for kind in KINDS if counts.get(kind)), key=KINDS.index, default="image")


def describe_units(counts: Mapping[str, int]) -> str:
    """Counts of each kind as a text: `by patient (16 images), by image (4 images, ...)`."""
    hints = {
        "patient": "",
        "volume": ", no patient is known",
        "folder": ", those of one folder kept together, no patient is known",
        "image": ", their patients are not known",
    }
    used = [(kind, counts[kind]) for kind in KINDS if counts.get(kind)]
    return ", ".join(
        f"by {kind} ({count:,} image{'s' if count != 1 else ''}{hints[kind]})" for kind, count in used
    )


def assign_to_parts(sizes: Sequence[int], wanted: Sequence[float], *, fill_empty: bool = False) -> list[int]:
    """The part of each unit, as its place in `wanted`. Each unit goes to the part that lacks most images.

    `sizes`: images of each unit, in the order of assignment. `wanted`: images that each part should get; of
    parts that lack equally many the first is taken. `fill_empty`: the last units go to parts that are empty.
    """
    lacking, every_part = list(wanted), range(len(wanted))
    empty = list(every_part) if fill_empty else []
    parts: list[int] = []
    for position, size in enumerate(sizes):
        # Only as many units are left as parts are empty, so each of these parts gets one.
        is_last_chance = empty and len(sizes) - position <= len(empty)
        part = max(empty if is_last_chance else every_part, key=lacking.__getitem__)
        lacking[part] -= size
        parts.append(part)
        if part in empty:
            empty.remove(part)
    return parts
