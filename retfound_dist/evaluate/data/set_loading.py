"""Loads a labelled set and decodes it once: classes, three parts, images left out, warnings.

data = load_labelled_set(config.data, image_size=224)
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from retfound_dist.config.schema import MULTICLASS, EvalData, Task
from retfound_dist.errors import DataError, StorageError
from retfound_dist.evaluate.data.labelled_set import (
    LabelledSet,
    SplitPart,
    describe_image,
)
from retfound_dist.evaluate.data.set_layouts import PARTS, LabelledImage, SetListing, list_labelled_images
from retfound_dist.evaluate.data.set_targets import SetTargets, check_parts, read_targets, target_digest
from retfound_dist.evaluate.data.split_leaks import find_leaks, pixel_digest
from retfound_dist.evaluate.data.split_parts import split_items, unit_kinds, unit_of, write_split
from retfound_dist.evaluate.data.subgroup_columns import check_subgroups, parse_subgroups, requested_columns
from retfound_dist.evaluate.pixels.gray_pixels import (
    BICUBIC,
    Pixels,
    decode_grey,
    resize_for_testing,
    resize_for_training,
)
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.images import image_digests
from retfound_dist.listing import class_names
from retfound_dist.listing.unit_checks import check_set
from retfound_dist.listing.unit_labels import read_unit_labels
from retfound_dist.listing.unit_names import IMAGE, index_units

_MAX_NAMED = 5


def load_labelled_set(
    config: EvalData,
    image_size: int,
    on_progress: ProgressCallback | None = None,
    interpolation: str = BICUBIC,
    task: Task | None = None,
) -> LabelledSet:
    """List, split and decode a labelled set. Raises DataError where it cannot be used.

    `task`: what is predicted; one class of several by default.
    """
    task = task or Task()
    subgroups = parse_subgroups(config.subgroups)
    columns = [*requested_columns(subgroups), *task.targets]
    listing = list_labelled_images(
        config.path,
        links=config.follow_links,
        columns=columns,
        needs_label=task.kind == MULTICLASS and not config.labels,
    )
    if config.labels:
        listing = label_by_unit(listing, config)
    check_subgroups(subgroups, listing.items, config.path)
    targets = None if task.kind == MULTICLASS else read_targets(listing.items, task, config.path)
    if targets:
        listing = replace(
            listing, items=targets.with_strata(listing.items), notes=(*listing.notes, *targets.notes)
        )
    split_source, all_items = split_items(
        listing.items, config, lambda item: not isinstance(_decode(item, 1), str)
    )
    items = all_items
    classes = tuple(sorted({item.label for item in items}))
    # Labels and classes are checked before decoding, so that errors in a list are reported within seconds.
    if targets:
        check_parts(targets, items, config.path)
    else:
        check_labels([item.label for item in items], config)
        _check_classes(classes, items, config.path, listing.notes)
    unit_notes = check_set(items, config.unit, config.path, config.allow_leak)
    decoded, faults = decode_all(items, image_size, on_progress, interpolation)
    skipped = (*listing.skipped, *faults)
    check_budget(skipped, len(faults), len(items), config.path, config.bad_sample_budget)
    readable = [(item, image) for item, image in zip(items, decoded, strict=True) if image]
    items, images = tuple(item for item, _ in readable), [image for _, image in readable]
    if targets:
        check_parts(targets, items, config.path)
    else:
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
        notes=(*listing.notes, *unit_notes),
        columns=listing.columns,
        parts={
            name: _make_part(name, items, images, classes, config.unknown_patient, targets) for name in PARTS
        },
        fingerprint=target_digest(fingerprint(items, images, config.unit), items, targets),
        unit=config.unit,
        targets=targets,
        unit_counts=unit_kinds(items, config.unknown_patient),
        train_val_digests=frozenset(
            image.digest for item, image in readable if item.split in ("train", "val")
        ),
    )


def label_by_unit(listing: SetListing, config: EvalData) -> SetListing:
    """The images whose volume, eye or patient has a label in `data.labels`, with this label."""
    labels, notes = read_unit_labels(config.labels).match(listing.items, config.path)
    items = tuple(
        replace(item, label=label) for item, label in zip(listing.items, labels, strict=True) if label
    )
    return replace(listing, items=items, notes=(*listing.notes, *notes))


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
    examples = "; ".join(f"{key}: {reason}" for key, reason in skipped[:_MAX_NAMED])
    if unreadable == items:
        key, reason = skipped[-1]
        raise DataError(
            f"none of the {items} images in {where} can be read ({key}: {reason}): "
            "repair or replace the files"
        )
    if len(skipped) > budget:
        raise DataError(
            f"{len(skipped)} images of {where} cannot be used, more than data.bad_sample_budget="
            f"{budget} ({examples}): repair them or raise the budget"
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
    """DataError for fewer than two classes, or for a class without an image in train or test.

    `where`: the set, for messages, which end with the first `notes`.
    """
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
    targets: SetTargets | None = None,
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
        descriptions=tuple(describe_image(items[i]) for i in rows),
        targets_NT=targets.of_images([items[i].key for i in rows]) if targets else None,
    )


def fingerprint(items: Sequence[LabelledImage], images: Sequence[DecodedImage], unit: str = IMAGE) -> str:
    """sha256 over keys, labels, patients, parts and pixels; of larger units also over their names."""
    rows = zip(items, images, strict=True)
    # Of pixels, not of files: a set that was copied to another lossless format is the same set.
    lines = "\n".join(f"{i.key}\t{i.label}\t{i.patient}\t{i.split}\t{image.digest}" for i, image in rows)
    if unit != IMAGE:
        index = index_units(items, unit)
        lines += "\n".join(["", unit, *(index.names[place] for place in index.unit_of_image_N)])
    return hashlib.sha256(lines.encode()).hexdigest()
