"""Loads a labelled set and decodes it once: classes, three parts, images left out, warnings.

data = load(config.data, image_size=224)
data.parts["test"].images     (N, S, S) uint8
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError, StorageError
from retfound_dist.evaluate.data.gray_pixels import Pixels, decode_grey, for_testing, for_training
from retfound_dist.evaluate.data.set_layouts import PARTS, LabelledImage, list_items
from retfound_dist.evaluate.data.split_leaks import find_leaks, pixel_digest
from retfound_dist.evaluate.data.split_parts import parts_of, unit_kinds, unit_of, write_split
from retfound_dist.images import image_digests
from retfound_dist.listing import class_names
from retfound_dist.listing.split_units import Unit

Tick = Callable[[int, int], None]
_NAMED = 5


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
    """Each image's patient, else its volume or folder, else itself; empty where that is not known."""
    digests: tuple[tuple[int, ...], ...] = ()
    """Digests that identify each image (`retfound_dist.images.image_digests`)."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class ExternalSet:
    """Another set, whose labels are mapped to the classes of this one (external_validation.py)."""

    path: str
    class_map: dict[str, tuple[str, ...]]
    """Model's class -> labels of the external set; classes that map to nothing are not in it."""
    part: SplitPart
    """Its labels are indices into `class_map`."""
    own_labels: tuple[str, ...]
    """Each image's label in the set itself."""
    left_out: dict[str, int]
    """Images of each label that is not mapped."""
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seen: int
    """Images that are in train or val too."""
    fingerprint: str
    columns: str = ""
    """Which columns were read of a list (`Listing.columns`)."""


@dataclass(frozen=True)
class LabelledSet:
    """A labelled set as fine-tuning and scoring use it."""

    path: str
    classes: tuple[str, ...]
    """Alphabetical; a class index points into it."""
    parts: dict[str, SplitPart]
    divided_by: str
    """`given` split, the split `file`'s, or by us by `patient`, `volume`, `folder` or `image`."""
    skipped: tuple[tuple[str, str], ...]
    """(key, reason) of every image left out."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """Which files were not images, and how folders and lists were read."""
    fingerprint: str
    """sha256 over keys, labels, patients, parts and pixels."""
    columns: str = ""
    """Which columns were read of a list of the images; empty where there is none."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Images that are known by their `patient`, else by a `volume` or `folder`, else alone (`image`)."""
    seen: frozenset[str] = frozenset()
    """`split_leaks.pixel_digest` of every image of train and val."""
    external: ExternalSet | None = None
    """Another set to test on, where one is given."""

    def counts(self) -> dict[str, Any]:
        """Images and patients in each part, for metrics.json."""
        return {
            "by": self.divided_by,
            "known_by": dict(self.kinds),
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


def load(config: EvalData, image_size: int, tick: Tick | None = None) -> LabelledSet:
    """List, split and decode a labelled set. Raises DataError where it cannot be used.

    `tick(done, total)` is called as images are decoded.
    """
    listing = list_items(config.path, links=config.follow_links)
    divided_by, divided = parts_of(listing.items, config, lambda item: not isinstance(_decode(item, 1), str))
    items = divided
    classes = tuple(sorted({item.label for item in items}))
    # Labels and classes are checked before anything is decoded: what is wrong with a list is said in seconds.
    check_labels([item.label for item in items], config)
    _check_classes(classes, items, config.path, listing.notes)
    decoded, faults = decode_all(items, image_size, tick)
    skipped = (*listing.skipped, *faults)
    check_budget(skipped, len(faults), len(items), config.path, config.bad_sample_budget)
    whole = [(item, image) for item, image in zip(items, decoded, strict=True) if image]
    items, images = tuple(item for item, _ in whole), [image for _, image in whole]
    _check_classes(classes, items, config.path, listing.notes)
    leaks = find_leaks(items, [image.digest for image in images])
    warnings = leaks.check(divided_by, config.path, config.allow_leak, config.unknown_patient)
    # Written last, so that a set that is refused leaves no split file. All items are in it, also those that
    # cannot be read: the file still fits once they are repaired.
    if config.split_file and divided_by != "file":
        write_split(config.split_file, divided)
    return LabelledSet(
        path=config.path,
        classes=classes,
        divided_by=divided_by,
        skipped=skipped,
        warnings=warnings,
        notes=listing.notes,
        columns=listing.columns,
        parts={name: _part(name, items, images, classes, config.unknown_patient) for name in PARTS},
        fingerprint=fingerprint(items, images),
        kinds=unit_kinds(items, config.unknown_patient),
        seen=frozenset(image.digest for item, image in whole if item.split in ("train", "val")),
    )


@dataclass(frozen=True)
class Decoded:
    """One image of a set."""

    pixels: Pixels
    """Sized for its part: see `SplitPart.images`."""
    digest: str
    """`split_leaks.pixel_digest` of all its pixels."""
    digests: tuple[int, ...]
    """See `SplitPart.digests`."""


def decode_all(
    items: Sequence[LabelledImage], side: int, tick: Tick | None
) -> tuple[list[Decoded | None], list[tuple[str, str]]]:
    """Each item's image, or None; (key, reason) of those that are None."""
    decoded: list[Decoded | None] = []
    faults = []
    # Threads are enough: the decoders and Pillow run outside Python's lock. Processes would copy the pixels.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for item, result in zip(items, pool.map(partial(_decode, side=side), items), strict=True):
            if isinstance(result, str):
                faults.append((item.key, result))
            decoded.append(None if isinstance(result, str) else result)
            if tick:
                tick(len(decoded), len(items))
    return decoded, faults


def _decode(item: LabelledImage, side: int) -> Decoded | str:
    """The item's image, or what is wrong with it."""
    try:
        data = item.read()
        pixels_HW = decode_grey(data)
    except (ValueError, OSError, StorageError, DataError) as error:
        # The reason stands in a list of reasons, one line each; some libraries explain themselves in several.
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    fitted = for_training if item.split == "train" else for_testing
    digests = (*image_digests.digests_of_image(data, pixels_HW), *item.digests)
    return Decoded(fitted(pixels_HW, side), pixel_digest(pixels_HW), digests)


def check_budget(
    skipped: Sequence[tuple[str, str]], unreadable: int, items: int, where: str, budget: int
) -> None:
    """DataError where nothing can be read, or more cannot be used than the budget allows."""
    if not skipped:
        return
    named = "; ".join(f"{key}: {reason}" for key, reason in skipped[:_NAMED])
    if unreadable == items:
        key, reason = skipped[-1]
        raise DataError(f"none of the {items} images in {where} can be read ({key}: {reason})")
    if len(skipped) > budget:
        raise DataError(
            f"{len(skipped)} images of {where} cannot be used, more than data.bad_sample_budget="
            f"{budget} ({named}): mend them or raise the budget"
        )


def check_labels(labels: Sequence[str], config: EvalData) -> None:
    """DataError where labels are no classes, and where a class has one image, which cannot be divided."""
    if config.labels_as_given:
        return
    doubts = class_names.doubts(labels)
    if doubts:
        raise DataError(
            f"{config.path}: {'; '.join(doubts)} (data.labels_as_given=true takes the labels as they are)"
        )
    single = sorted(label for label, count in Counter(labels).items() if count == 1)
    if single:
        raise DataError(
            f"{config.path}: only one image of class {', '.join(single)}: a class needs images to train and "
            "to test on; add some, or leave the class out"
        )


def _check_classes(
    classes: Sequence[str], items: Sequence[LabelledImage], where: str, notes: Sequence[str]
) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{where} has one class only ({', '.join(classes) or 'none'}): "
            "a classifier needs at least two to tell apart" + "".join(f"; {note}" for note in notes[:_NAMED])
        )
    for name in ("train", "test"):
        # A class may be absent in val: that affects only the choice of the epoch, and the page says so.
        labels_in_part = {item.label for item in items if item.split == name}
        missing = [label for label in classes if label not in labels_in_part]
        if missing:
            raise DataError(
                f"{where}: no image of class {', '.join(missing)} in the {name} part: "
                "add images (or patients) of it, change data.split_seed, or leave the class out"
                + "".join(f"; {note}" for note in notes[:_NAMED])
            )


def _part(
    name: str, items: Sequence[LabelledImage], images: Sequence[Decoded], classes: Sequence[str], rule: str
) -> SplitPart:
    rows = [i for i, item in enumerate(items) if item.split == name]
    return SplitPart(
        keys=tuple(items[i].key for i in rows),
        labels=np.array([classes.index(items[i].label) for i in rows], dtype=np.int64),
        patients=tuple(items[i].patient for i in rows),
        images=tuple(images[i].pixels for i in rows),
        units=tuple(unit_of(items[i], rule) for i in rows),
        digests=tuple(images[i].digests for i in rows),
    )


def fingerprint(items: Sequence[LabelledImage], images: Sequence[Decoded]) -> str:
    """sha256 over keys, labels, patients, parts and pixels."""
    rows = zip(items, images, strict=True)
    # Pixels and not the files' bytes: a set that was copied to another lossless format is the same set.
    lines = "\n".join(f"{i.key}\t{i.label}\t{i.patient}\t{i.split}\t{image.digest}" for i, image in rows)
    return hashlib.sha256(lines.encode()).hexdigest()
