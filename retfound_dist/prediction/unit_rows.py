"""`--unit`: rows of volumes, eyes or patients in place of images, with the images that decided each.

Shapes: S seeds, N images, U units, C classes, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.classifier.unit_classifier import pool_seeds
from retfound_dist.evaluate.units.slice_pooling import SliceScores
from retfound_dist.listing.unit_names import IMAGE, NamedImage, UnitIndex, index_units
from retfound_dist.prediction.input_images import ScanFacts
from retfound_dist.prediction.prediction_run import ImagePredictions
from retfound_dist.runtime.humanize import plural

MAX_DECIDING = 3
"""Images that are named for each unit."""
MAX_NAMED = 5
"""Images without a unit that a message names."""
_NO_UNIT = {
    "volume": "give a list with the column volume, device files, or shards that know their volumes",
    "eye": "give a list with the columns patient and eye, device files, or shards that know both",
    "patient": "give a list with the column patient, device files, or shards that know their patients",
}


@dataclass(frozen=True)
class UnitPredictions:
    """Predictions of units, in the order of their names."""

    predictions: ImagePredictions
    """A row for each unit. `keys` are the names of the units."""
    images: list[str]
    """How many images each unit has; `23 of 25` where some cannot be read."""
    deciding: list[str]
    """The keys of the images that decided each unit, the most important first, with their weights."""
    notes: tuple[str, ...]


def check_unit(unit: str, shard: str) -> None:
    """ConfigError where a part of the images could hold a part of a unit."""
    if unit != IMAGE and shard:
        raise ConfigError(
            f"--unit {unit} with --shard {shard}: the images of one {unit} may be in two parts; "
            "leave --shard out, or give the images of some patients to each command"
        )


def predict_units(
    images: ImagePredictions, facts: ClassifierFile, unit: str, pools: Sequence[nn.Module] = ()
) -> UnitPredictions:
    """The predictions of units. DataError where the unit of no image is known.

    `pools`: the attention head of each seed, if there are any; then `images` must have features. Unreadable
    images do not count.
    """
    named_scans = zip(images.keys, images.facts, strict=True)
    all_images = [NamedImage(key, scan.patient, scan.volume, scan.eye) for key, scan in named_scans]
    everything = index_units(all_images, unit)
    _check_known(everything, len(images.keys), unit)
    readable_N = np.array([not reason for reason in images.reasons])
    places_N = np.flatnonzero(readable_N)
    index = index_units([_named(images, place) for place in places_N.tolist()], unit)
    features_SND = None if images.features_SND is None else images.features_SND[:, places_N]
    image_SNC = images.probabilities_SNC[:, places_N]
    probabilities_SUC, slices = pool_seeds(pools, image_SNC, features_SND, index, facts.digits)
    assert slices is not None
    # A unit without a readable image has a row too.
    row_of_unit = {name: row for row, name in enumerate(index.names)}
    shape = (len(facts.seeds), len(everything), len(facts.classes))
    all_SUC = np.full(shape, np.nan)
    deciding = [""] * len(everything)
    for place, name in enumerate(everything.names):
        if (row := row_of_unit.get(name)) is not None:
            all_SUC[:, place] = probabilities_SUC[:, row]
            chosen = int(probabilities_SUC[:, row].mean(0).argmax())
            deciding[place] = _deciding(images, places_N, slices, index.images_of_units[row], chosen)
    members = everything.images_of_units
    return UnitPredictions(
        ImagePredictions(
            keys=list(everything.names),
            facts=[_common_facts([images.facts[place] for place in places]) for places in members],
            probabilities_SNC=all_SUC,
            reasons=[
                "" if readable_N[places].any() else images.reasons[int(places[0])] for places in members
            ],
            computed=images.computed,
        ),
        [_count(len(places), int(readable_N[places].sum())) for places in members],
        deciding,
        _notes(everything, unit),
    )


def _named(images: ImagePredictions, place: int) -> NamedImage:
    one = images.facts[place]
    return NamedImage(images.keys[place], one.patient, one.volume, one.eye)


def _deciding(
    images: ImagePredictions,
    places_N: NDArray[np.int64],
    slices: SliceScores,
    members: NDArray[np.int64],
    chosen: int,
) -> str:
    """`key (0.62); key (0.21)`: attention, or without it the probability of the unit's class."""
    strength = (
        slices.probabilities_NC[members, chosen] if slices.weights_N is None else slices.weights_N[members]
    )
    first = np.argsort(-strength, kind="stable")[:MAX_DECIDING]
    return "; ".join(f"{images.keys[places_N[members[row]]]} ({strength[row]:.2f})" for row in first)


def _check_known(index: UnitIndex, images: int, unit: str) -> None:
    if len(index.fallbacks) == images:
        raise DataError(f"--unit {unit}: no image has a known {unit}: {_NO_UNIT[unit]}")


def _common_facts(facts: Sequence[ScanFacts]) -> ScanFacts:
    """What all images of a unit have in common."""

    def common(values: list[str | None]) -> str | None:
        distinct = {value for value in values if value is not None}
        return distinct.pop() if len(distinct) == 1 else None

    return ScanFacts(
        common([one.patient for one in facts]),
        common([one.eye for one in facts]),
        common([one.volume for one in facts]),
    )


def _count(images: int, readable: int) -> str:
    return str(images) if images == readable else f"{readable} of {images}"


def _notes(index: UnitIndex, unit: str) -> tuple[str, ...]:
    notes = []
    for kind, count in Counter(kind for kind, _ in index.fallbacks).items():
        keys = [key for one, key in index.fallbacks if one == kind]
        more = ", ..." if count > MAX_NAMED else ""
        rows = "alone" if kind == IMAGE else f"by its {kind}"
        notes.append(
            f"{plural(count, 'image')} without a known {unit}: each is predicted {rows} "
            f"({', '.join(keys[:MAX_NAMED])}{more})"
        )
    return tuple(notes)
