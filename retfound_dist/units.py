"""What a split must not divide: a patient; where none is known a folder or volume of slices; else an image.

One rule for packing and for evaluating.
"""

from __future__ import annotations

from collections.abc import Mapping

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
