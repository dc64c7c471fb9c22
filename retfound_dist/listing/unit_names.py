"""Decides which unit each image belongs to: itself, its volume, its eye or its patient.

An eye is a patient with a side. An image whose unit is not known is scored with its volume, which is always
of one eye, or else alone. Such images are counted and named.

Shapes: N images, U units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retfound_dist.listing.split_units import patients_of_units

IMAGE, VOLUME, EYE, PATIENT = "image", "volume", "eye", "patient"
UNITS = (IMAGE, VOLUME, EYE, PATIENT)
"""Values of `data.unit`, the smallest first."""


class ImageOrigin(Protocol):
    """What a set says of one image; None where it is not known."""

    @property
    def key(self) -> str:
        """Unique in the set."""

    @property
    def patient(self) -> str | None:
        """The patient's pseudonym."""

    @property
    def volume(self) -> str | None:
        """The volume that the image is a slice of."""

    @property
    def eye(self) -> str | None:
        """`L` or `R`."""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image without pixels, as an `ImageOrigin`."""

    key: str
    patient: str | None = None
    volume: str | None = None
    eye: str | None = None


@dataclass(frozen=True)
class UnitIndex:
    """The units of some images, sorted by their names."""

    unit: str
    """One of `UNITS`."""
    names: tuple[str, ...]
    """(U,): `PATIENT R` for an eye, else the name of the volume or patient, or the key of the image."""
    unit_of_image_N: NDArray[np.int64]
    """The place of each image's unit in `names`."""
    fallbacks: tuple[tuple[str, str], ...] = ()
    """(`volume` or `image`, key) of images whose unit is not known, and what they are scored as."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def first_images_U(self) -> NDArray[np.int64]:
        """The place of the first image of each unit."""
        return np.unique(self.unit_of_image_N, return_index=True)[1]

    @cached_property
    def images_of_units(self) -> list[NDArray[np.int64]]:
        """The places of the images of each unit."""
        order = np.argsort(self.unit_of_image_N, kind="stable")
        counts = np.bincount(self.unit_of_image_N, minlength=len(self.names))
        return np.split(order, np.cumsum(counts)[:-1]) if len(self.names) else []


def index_units(origins: Sequence[ImageOrigin], unit: str) -> UnitIndex:
    """The unit of each image. `unit`: one of `UNITS`."""
    # Lists often name the eye of some slices only. All slices of a volume are of one eye.
    eyes = patients_of_units((_volume_id(one), one.eye) for one in origins)
    ids = [_unit_id(one, one.eye or eyes.get(_volume_id(one) or ""), unit) for one in origins]
    name_of_id = _names_of(ids, unit)
    names = tuple(sorted(set(name_of_id.values())))
    place = {name: number for number, name in enumerate(names)}
    unit_of_image_N = np.array([place[name_of_id[one]] for one in ids], dtype=np.int64)
    fallbacks = tuple((kind, one.key) for one, (kind, *_) in zip(origins, ids, strict=True) if kind != unit)
    return UnitIndex(unit, names, unit_of_image_N, fallbacks)


def _unit_id(one: ImageOrigin, eye: str | None, unit: str) -> tuple[str, ...]:
    """(kind, its names). The kind differs from `unit` where the unit is not known."""
    if unit == PATIENT and one.patient is not None:
        return PATIENT, one.patient
    if unit == EYE and one.patient is not None and eye is not None:
        return EYE, one.patient, eye
    # Two patients may both have a volume "1".
    if unit != IMAGE and one.volume is not None:
        return VOLUME, one.volume, one.patient or ""
    return IMAGE, one.key


def _volume_id(one: ImageOrigin) -> str | None:
    return None if one.volume is None else f"{one.patient}\n{one.volume}"


def _names_of(ids: Iterable[tuple[str, ...]], unit: str) -> Mapping[tuple[str, ...], str]:
    """A name for each unit, and no name twice."""
    distinct_ids = dict.fromkeys(ids)
    volumes = Counter(name for kind, name, *_ in distinct_ids if kind == VOLUME)
    names = {}
    for one in distinct_ids:
        kind, name, *owner = one
        if kind == EYE or (kind == VOLUME and volumes[name] > 1):
            # A volume with its patient in front; an eye with its side behind.
            name = " ".join([name, *owner] if kind == EYE else [*filter(None, owner), name])
        names[one] = name if kind == unit else f"{kind} {name}"
    return _without_repeats(names)


def _without_repeats(names: Mapping[tuple[str, ...], str]) -> Mapping[tuple[str, ...], str]:
    """The same names, with a number behind each that another unit has too.

    Volume `1` of patient `p` and a volume that is called `p 1` would be one unit otherwise.
    """
    used_names, counts = set(names.values()), Counter(names.values())
    unique = dict(names)
    for one in sorted(one for one, name in names.items() if counts[name] > 1):
        number = next(n for n in count(1) if f"{names[one]} ({n})" not in used_names)
        unique[one] = f"{names[one]} ({number})"
        used_names.add(unique[one])
    return unique
