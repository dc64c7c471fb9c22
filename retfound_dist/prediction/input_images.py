"""The images that `retfound predict` is given, described without reading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import Entry, Shard
from retfound_dist.listing.split_units import patients_of_units

ScanPixels = NDArray[np.generic]
"""A B-scan of a device file: (H, W), of any depth."""
FOLLOW_LINKS = "--follow-links"
"""The option that allows links that lead out of the folder."""


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What is known of an image besides its key; None where it is not known."""

    patient: str | None = None
    eye: str | None = None
    """`L` or `R`."""
    volume: str | None = None
    slice: int | None = None
    """The place in its volume."""


@dataclass(frozen=True, slots=True)
class ShardSample:
    """A sample of a shard set."""

    url: str
    shard: Shard
    entry: Entry
    several_sources: bool
    """Then names of patients and volumes begin with the source, as in packing."""

    @property
    def identity(self) -> str:
        """Changes with the sample. Known without reading it, from the manifest."""
        return f"{self.shard.sha256} {self.entry.image_offset}"


Content = Callable[[], bytes | ScanPixels] | ShardSample


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to predict."""

    key: str
    """Unique. For a labelled set the key of `predictions.csv`."""
    content: Content
    """Returns the bytes of an image file, or pixels; picklable. Or a sample of a shard."""
    facts: ScanFacts = ScanFacts()
    """Empty for a sample of a shard, whose facts lie in the shard."""
    together: str = ""
    """Consecutive images with the same text are decoded together: slices of one device file."""
    group: str | None = None
    """A folder or file that holds images of one patient."""


@dataclass(frozen=True)
class InputListing:
    """All images to predict, in the order of the output."""

    images: Sequence[InputImage]
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(default=())
    """Labels that the images seem to have, sorted. They are not used."""
    labels_are_certain: bool = True
    """False: they are names of folders, which may be no labels."""


def check_keys(listing: InputListing, shown: str) -> InputListing:
    """The same listing; DataError where two images have one key, or where there is no image."""
    if not listing.images:
        raise DataError(f"there is no image in {shown}: give images, device files or a shard set")
    counts = Counter(image.key for image in listing.images)
    if repeated := [key for key, count in counts.items() if count > 1]:
        raise DataError(
            f"{len(repeated):,} keys of {shown} are of two images ({repeated[0]}): "
            "give each image once, or give the files in separate commands"
        )
    return listing


def with_known_patients(images: Sequence[InputImage]) -> tuple[list[InputImage], tuple[str, ...]]:
    """Gives images without a patient the patient of other slices of their volume; a note on how many."""

    def unit_of(image: InputImage) -> str | None:
        return image.group or image.facts.volume

    owners = patients_of_units((unit_of(image), image.facts.patient) for image in images)
    if not owners:
        return list(images), ()
    named = [
        replace(image, facts=replace(image.facts, patient=owners.get(unit_of(image) or "")))
        if image.facts.patient is None
        else image
        for image in images
    ]
    changed = sum(new.facts.patient != old.facts.patient for new, old in zip(named, images, strict=True))
    note = f"the patient of {changed:,} images is taken from other slices of their volume"
    return named, (note,) if changed else ()


def label_notes(listing: InputListing, classes: Iterable[str]) -> tuple[str, ...]:
    """Sentences on labels, which are not used, and on those that the classifier does not know."""
    class_names = sorted(set(classes))
    if not listing.labels or not (listing.labels_are_certain or set(listing.labels) & set(class_names)):
        return ()
    text = "the labels of the images are not used (`retfound evaluate` with external.path scores them)"
    if unknown := [label for label in listing.labels if label not in class_names]:
        more = f" and {len(unknown) - 10:,} more" if len(unknown) > 10 else ""
        return (
            text,
            f"labels that are no class of the classifier: {', '.join(unknown[:10])}{more} "
            f"(its classes: {', '.join(class_names)})",
        )
    return (text,)


def part_of_images(images: Sequence[InputImage], index: int, count: int) -> Sequence[InputImage]:
    """The `index`-th (from 1) of `count` consecutive parts of about equal size. No volume is divided.

    The parts of all indices are the whole, in order.
    """

    def begin(number: int) -> int:
        place = number * len(images) // count
        while 0 < place < len(images) and _same_volume(images[place - 1], images[place]):
            place += 1
        return place

    return images[begin(index - 1) : begin(index)]


def _same_volume(first: InputImage, second: InputImage) -> bool:
    volume: Any = first.facts.volume
    return volume is not None and volume == second.facts.volume
