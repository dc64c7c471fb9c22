"""A labelled set as fine-tuning and scoring use it: classes and three parts.

data.parts["test"].images     (N, S, S) uint8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.data.set_layouts import LabelledImage
from retfound_dist.evaluate.data.set_targets import SetTargets
from retfound_dist.evaluate.pixels.gray_pixels import (
    Pixels,
)
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.listing.split_units import Unit
from retfound_dist.listing.unit_names import IMAGE, NamedImage, UnitIndex, index_units


@dataclass(frozen=True)
class ImageDescription:
    """What a set says of one image besides its label and patient; None where it is not known."""

    volume: str | None = None
    eye: str | None = None
    """`L` or `R`."""
    slice: int | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """`LabelledImage.columns`."""


def describe_image(item: LabelledImage) -> ImageDescription:
    """What the set says of an image."""
    return ImageDescription(item.volume, item.eye, item.slice, item.columns)


@dataclass(frozen=True)
class SplitPart:
    """Images of one part, in the order of their keys."""

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    """Class indices (N,)."""
    patients: tuple[str | None, ...]
    images: tuple[Pixels, ...]
    """Grey: (H, W) each in train, (S, S) in val and test."""
    units: tuple[Unit, ...] = ()
    """The split unit of each image: its patient, else its volume or folder, else the image itself."""
    digests: tuple[tuple[int, ...], ...] = ()
    """Digests that identify each image (`retfound_dist.images.image_digests`)."""
    descriptions: tuple[ImageDescription, ...] = ()
    targets_NT: Floats | None = None
    """The answers of other tasks than `multiclass`, see `SetTargets`; NaN: not known."""

    def __len__(self) -> int:
        return len(self.keys)

    def index(self, unit: str) -> UnitIndex:
        """Which volume, eye or patient each image belongs to; `unit`: as `LabelledSet.unit`."""
        # Parts that were made without descriptions know no volume and no eye.
        described = self.descriptions or [ImageDescription()] * len(self)
        rows = zip(self.keys, self.patients, described, strict=True)
        return index_units([NamedImage(key, patient, d.volume, d.eye) for key, patient, d in rows], unit)


@dataclass(frozen=True)
class ExternalSet:
    """Another set. Its labels are mapped to the classes of the labelled set (external_validation.py)."""

    path: str
    class_map: dict[str, tuple[str, ...]]
    """Model's class -> labels of the external set; classes without a label are not in it."""
    part: SplitPart
    """Its labels are indices into `class_map`."""
    own_labels: tuple[str, ...]
    """Each image's label in the external set."""
    unmapped_counts: dict[str, int]
    """Number of images of each label that is not mapped."""
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    leaked_images: int
    """Number of images that are also in train or val."""
    fingerprint: str
    columns: str = ""
    """Which columns of a list were read (`SetListing.columns`)."""
    unit: str = IMAGE
    """What an entry of `part` is: an image, or what `units.unit_parts` has made of the images."""
    images: int = 0
    """Number of images, where an entry is a larger unit."""


@dataclass(frozen=True)
class TrainSelection:
    """The images of a larger train part that a set has."""

    whole: LabelledSet
    """The same set with the larger train part."""
    indices_N: NDArray[np.int64]
    """Sorted places in the larger train part."""


@dataclass(frozen=True)
class LabelledSet:
    """A labelled set as fine-tuning and scoring use it."""

    path: str
    classes: tuple[str, ...]
    """Alphabetical; a class index points into it."""
    parts: dict[str, SplitPart]
    split_source: str
    """`given`: the set has a split; `file`: from a split file; else our own split by `patient`, `volume`,
    `folder` or `image`."""
    skipped: tuple[tuple[str, str], ...]
    """(key, reason) of every image left out."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """Which files were not images, and how folders and lists were read."""
    fingerprint: str
    """sha256 over keys, labels, patients, parts and pixels."""
    columns: str = ""
    """Which columns of the list of images were read; empty where there is no list."""
    unit_counts: Mapping[str, int] = field(default_factory=dict)
    """Number of images whose split unit is a `patient`, a `volume`, a `folder` or the `image` itself."""
    train_val_digests: frozenset[str] = frozenset()
    """`split_leaks.pixel_digest` of every image of train and val."""
    external: ExternalSet | None = None
    """Another set to test on, where one is given."""
    unit: str = IMAGE
    """What is scored (`data.unit`)."""
    selection: TrainSelection | None = None
    """Where train has only some of the labels: which ones."""
    targets: SetTargets | None = None
    """What is predicted, where that is not one class of several. `classes` are then the groups of images
    that the split divides alike (`SetTargets.strata`)."""

    def counts(self) -> dict[str, Any]:
        """Images and patients in each part, for metrics.json."""
        return {
            "by": self.split_source,
            "known_by": dict(self.unit_counts),
            **{name: len(part) for name, part in self.parts.items()},
            "patients": {name: count_patients(part.patients) for name, part in self.parts.items()},
            "per_class": {
                name: {c: int((part.labels == i).sum()) for i, c in enumerate(self.classes)}
                for name, part in self.parts.items()
            },
        }


def count_patients(patients: Sequence[str | None]) -> int | None:
    """How many patients; None where not every image names one."""
    return None if any(p is None for p in patients) else len(set(patients))
