"""Loads a labelled set and decodes it once: classes, three parts, images left out, warnings.

data = load_labelled_set(config.data, image_size=224)
data.parts["test"].images     (N, S, S) uint8
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError, StorageError
from retfound_dist.evaluate.data.gray_pixels import (
    BICUBIC,
    Pixels,
    decode_grey,
    resize_for_testing,
    resize_for_training,
)
from retfound_dist.evaluate.data.set_layouts import PARTS, LabelledImage, list_labelled_images
from retfound_dist.evaluate.data.split_leaks import find_leaks, pixel_digest
from retfound_dist.evaluate.data.split_parts import split_items, unit_kinds, unit_of, write_split
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.images import image_digests
from retfound_dist.listing import class_names
from retfound_dist.listing.split_units import Unit

_MAX_NAMED = 5


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

    def __len__(self) -> int:
        return len(self.keys)


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
    selection: TrainSelection | None = None
    """Where train has only some of the labels: which ones."""

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


def load_labelled_set(
    config: EvalData,
    image_size: int,
    on_progress: ProgressCallback | None = None,
    interpolation: str = BICUBIC,
) -> LabelledSet:
    """List, split and decode a labelled set. Raises DataError where it cannot be used."""
    listing = list_labelled_images(config.path, links=config.follow_links)
    split_source, all_items = split_items(
        listing.items, config, lambda item: not isinstance(_decode(item, 1), str)
    )
    items = all_items
    classes = tuple(sorted({item.label for item in items}))
    # Labels and classes are checked before decoding, so that errors in a list are reported within seconds.
    check_labels([item.label for item in items], config)
    _check_classes(classes, items, config.path, listing.notes)
    decoded, faults = decode_all(items, image_size, on_progress, interpolation)
    skipped = (*listing.skipped, *faults)
    check_budget(skipped, len(faults), len(items), config.path, config.bad_sample_budget)
    readable = [(item, image) for item, image in zip(items, decoded, strict=True) if image]
    items, images = tuple(item for item, _ in readable), [image for _, image in readable]
    _check_classes(classes, items, config.path, listing.notes)
    leaks = find_leaks(items, [image.digest for image in images])
    warnings = leaks.check(split_source, config.path, config.allow_leak, config.unknown_patient)
    # Written last, so that a refused set leaves no split file. It has all items, also unreadable ones, so it
    # still fits after they are repaired.
    if config.split_file and split_source != "file":
        write_split(config.split_file, all_items)
    return LabelledSet(
        path=config.path,
        classes=classes,
        split_source=split_source,
        skipped=skipped,
        warnings=warnings,
        notes=listing.notes,
        columns=listing.columns,
        parts={name: _make_part(name, items, images, classes, config.unknown_patient) for name in PARTS},
        fingerprint=fingerprint(items, images),
        unit_counts=unit_kinds(items, config.unknown_patient),
        train_val_digests=frozenset(
            image.digest for item, image in readable if item.split in ("train", "val")
        ),
    )


@dataclass(frozen=True)
class DecodedImage:
    """One image of a set."""

    pixels: Pixels
    """Resized for its part, see `SplitPart.images`."""
    digest: str
    """`split_leaks.pixel_digest` of all its pixels."""
    digests: tuple[int, ...]
    """See `SplitPart.digests`."""


def decode_all(
    items: Sequence[LabelledImage],
    side: int,
    on_progress: ProgressCallback | None,
    interpolation: str = BICUBIC,
) -> tuple[list[DecodedImage | None], list[tuple[str, str]]]:
    """The image of each item, None where it cannot be read; (key, reason) of those that cannot be read."""
    decoded: list[DecodedImage | None] = []
    faults = []
    decode = partial(_decode, side=side, interpolation=interpolation)
    # Threads suffice: the decoders and Pillow release Python's lock. Processes would copy the pixels.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for item, result in zip(items, pool.map(decode, items), strict=True):
            if isinstance(result, str):
                faults.append((item.key, result))
            decoded.append(None if isinstance(result, str) else result)
            if on_progress:
                on_progress(len(decoded), len(items))
    return decoded, faults


def _decode(item: LabelledImage, side: int, interpolation: str = BICUBIC) -> DecodedImage | str:
    """The item's image, or the reason why it cannot be read."""
    try:
        data = item.read()
        pixels_HW = decode_grey(data)
    except (ValueError, OSError, StorageError, DataError) as error:
        # Reasons are listed one a line, but messages of some libraries have several lines.
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    resize = resize_for_training if item.split == "train" else resize_for_testing
    digests = (*image_digests.digests_of_image(data, pixels_HW), *item.digests)
    return DecodedImage(resize(pixels_HW, side, interpolation), pixel_digest(pixels_HW), digests)


def check_budget(
    skipped: Sequence[tuple[str, str]], unreadable: int, items: int, where: str, budget: int
) -> None:
    """DataError where no image can be read, or where more images cannot be used than the budget allows."""
    if not skipped:
        return
    named = "; ".join(f"{key}: {reason}" for key, reason in skipped[:_MAX_NAMED])
    if unreadable == items:
        key, reason = skipped[-1]
        raise DataError(
            f"none of the {items} images in {where} can be read ({key}: {reason}): "
            "repair or replace the files"
        )
    if len(skipped) > budget:
        raise DataError(
            f"{len(skipped)} images of {where} cannot be used, more than data.bad_sample_budget="
            f"{budget} ({named}): repair them or raise the budget"
        )


def check_labels(labels: Sequence[str], config: EvalData) -> None:
    """DataError where labels do not look like classes, or where a class has only one image to split."""
    if config.labels_as_given:
        return
    doubts = class_names.label_problems(labels)
    if doubts:
        raise DataError(
            f"{config.path}: {'; '.join(doubts)} (data.labels_as_given=true accepts the labels as they are)"
        )
    single = sorted(label for label, count in Counter(labels).items() if count == 1)
    if single:
        raise DataError(
            f"{config.path}: only one image of class {', '.join(single)}, but a class needs images for "
            "training and for testing: add images, or leave the class out"
        )


def _check_classes(
    classes: Sequence[str], items: Sequence[LabelledImage], where: str, notes: Sequence[str]
) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{where} has fewer than two classes ({', '.join(classes) or 'none'}): "
            "a classifier needs at least two" + "".join(f"; {note}" for note in notes[:_MAX_NAMED])
        )
    for name in ("train", "test"):
        # A class may be missing in val: that affects only the choice of the epoch, and the page warns of it.
        labels_in_part = {item.label for item in items if item.split == name}
        missing = [label for label in classes if label not in labels_in_part]
        if missing:
            raise DataError(
                f"{where}: no image of class {', '.join(missing)} in the {name} part: "
                "add images (or patients) of it, change data.split_seed, or leave the class out"
                + "".join(f"; {note}" for note in notes[:_MAX_NAMED])
            )


def _make_part(
    name: str,
    items: Sequence[LabelledImage],
    images: Sequence[DecodedImage],
    classes: Sequence[str],
    rule: str,
) -> SplitPart:
    """The part of this name, from the items that belong to it."""
    rows = [i for i, item in enumerate(items) if item.split == name]
    return SplitPart(
        keys=tuple(items[i].key for i in rows),
        labels=np.array([classes.index(items[i].label) for i in rows], dtype=np.int64),
        patients=tuple(items[i].patient for i in rows),
        images=tuple(images[i].pixels for i in rows),
        units=tuple(unit_of(items[i], rule) for i in rows),
        digests=tuple(images[i].digests for i in rows),
    )


def fingerprint(items: Sequence[LabelledImage], images: Sequence[DecodedImage]) -> str:
    """sha256 over keys, labels, patients, parts and pixels."""
    rows = zip(items, images, strict=True)
    # Of pixels, not of files: a set that was copied to another lossless format is the same set.
    lines = "\n".join(f"{i.key}\t{i.label}\t{i.patient}\t{i.split}\t{image.digest}" for i, image in rows)
    return hashlib.sha256(lines.encode()).hexdigest()
