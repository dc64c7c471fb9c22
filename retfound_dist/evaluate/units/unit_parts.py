"""The parts of a labelled set as units: a volume, an eye or a patient stands where an image stood.

What comes after the predictions (scores, intervals, files, pages) then treats units as it treats images.

Shapes: N images, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.data.labelled_set import ExternalSet, LabelledSet, SplitPart
from retfound_dist.listing.unit_names import IMAGE

TESTED_PARTS = ("val", "test")
"""Parts that are scored. Train stays a part of images: the network learns from single images."""


def part_of_units(
    part: SplitPart, unit: str, shown_U: Sequence[int] | NDArray[np.int64] | None = None
) -> SplitPart:
    """The part with one entry for each unit, in the order of their names.

    `shown_U`: the image that is shown of each unit; by default its first one.
    """
    if unit == IMAGE or not len(part):
        return part
    index = part.index(unit)
    rows = index.first_images_U
    shown = rows if shown_U is None else shown_U
    digests = [tuple(d for i in places for d in part.digests[i]) for places in index.images_of_units]
    return SplitPart(
        keys=index.names,
        labels=part.labels[rows],
        patients=tuple(part.patients[i] for i in rows),
        images=tuple(part.images[i] for i in shown),
        units=tuple(part.units[i] for i in rows if part.units),
        digests=tuple(digests) if part.digests else (),
        descriptions=tuple(part.descriptions[i] for i in rows if part.descriptions),
    )


def scored_set(data: LabelledSet, shown_U: Sequence[int] | NDArray[np.int64] | None = None) -> LabelledSet:
    """The set whose val and test parts, and external set, have units. `shown_U`: as in `part_of_units`."""
    if data.unit == IMAGE:
        return data
    tested = {
        name: part_of_units(data.parts[name], data.unit, shown_U if name == "test" else None)
        for name in TESTED_PARTS
    }
    external = external_of_units(data.external, data.unit) if data.external else None
    return replace(data, parts={**data.parts, **tested}, external=external)


def parts_of_units(data: LabelledSet, names: Sequence[str]) -> LabelledSet:
    """The set whose parts of these names have units; the others stay as they are."""
    units = {name: part_of_units(data.parts[name], data.unit) for name in names}
    return replace(data, parts={**data.parts, **units})


def external_of_units(external: ExternalSet, unit: str) -> ExternalSet:
    """The external set with one entry for each unit."""
    index = external.part.index(unit)
    # Several of its labels may belong to one class of the model, also within a unit.
    labels = [
        " + ".join(dict.fromkeys(external.own_labels[i] for i in places)) for places in index.images_of_units
    ]
    return replace(
        external,
        part=part_of_units(external.part, unit),
        own_labels=tuple(labels),
        unit=unit,
        images=len(external.part),
    )


def count_parts(data: LabelledSet) -> dict[str, Any]:
    """The entry `split` of metrics.json: units and patients in each part, and under `images` the images."""
    if data.unit == IMAGE:
        return data.counts()
    return {
        **parts_of_units(data, tuple(data.parts)).counts(),
        "unit": data.unit,
        "images": {name: len(part) for name, part in data.parts.items()},
    }


def mean_features(features_ND: NDArray[np.float32], data: LabelledSet) -> NDArray[np.float32]:
    """(U, D): the mean over each unit of the test part; images unchanged."""
    if data.unit == IMAGE:
        return features_ND
    places = data.parts["test"].index(data.unit).images_of_units
    return np.stack([features_ND[images].mean(0) for images in places])
