"""What a split must not divide: a patient; where none is known a folder or volume of slices; else an image.

One rule for packing and for evaluating.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

KINDS = ("patient", "volume", "folder", "image")
"""What images can be kept together by, the surest first."""
TOGETHER, BY_IMAGE = "volume", "image"
"""Values of `unknown_patient`."""
Unit = tuple[str, str]
"""(kind, name)"""


def unit_of(key: str, patient: str | None, group: str | None, volume: str | None, unknown: str) -> Unit:
    """What an image is kept together with.

    `group` is a folder that may hold several volumes; `unknown` says whether volumes count (`volume`) or
    every image whose patient is not known stands for itself (`image`).
    """
    if patient is not None:
        return "patient", patient
    if unknown == TOGETHER and group is not None:
        return "folder", group
    if unknown == TOGETHER and volume is not None:
        return "volume", volume
    return "image", key


def patients_of_units(rows: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """Volume or folder -> its patient, of rows (volume or folder, patient), where one patient is known of it.

    So a volume stays whole where a list names the patient of some of its slices only.
    """
    held: dict[str, set[str]] = {}
    for unit, patient in rows:
        if unit is not None and patient is not None:
            held.setdefault(unit, set()).add(patient)
    return {unit: next(iter(patients)) for unit, patients in held.items() if len(patients) == 1}


def weakest(counts: Mapping[str, int]) -> str:
    """What a split that used several kinds must be called: by image as soon as one image stands alone."""
    return max((kind for kind in KINDS if counts.get(kind)), key=KINDS.index, default="image")


def in_words(counts: Mapping[str, int]) -> str:
    """`by patient (16 images), by image (4 images, no patient is known)`."""
    hints = {
        "patient": "",
        "volume": ", no patient is known",
        "folder": ", those of one folder kept together, no patient is known",
        "image": ", their patients are not known",
    }
    held = [(kind, counts[kind]) for kind in KINDS if counts.get(kind)]
    return ", ".join(
        f"by {kind} ({count:,} image{'s' if count != 1 else ''}{hints[kind]})" for kind, count in held
    )
