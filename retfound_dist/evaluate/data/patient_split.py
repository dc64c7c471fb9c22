"""Splits patients into train, val and test: a pure function of labels, patients and a seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

_ORDER = ("train", "test", "val")
"""Which part comes first when a class has too few patients for all of them."""


def split_by_unit(
    labels: Sequence[str], units: Sequence[str], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The part of each image: no unit (patient, or image) in two parts, each class divided by `shares`.

    `units` names each image's unit; a unit belongs to the class most of its images have. Within a
    class, units in random order go where most images are still wanted; when few are left, to parts
    that have none yet.
    """
    images: dict[str, Counter[str]] = defaultdict(Counter)
    for label, unit in zip(labels, units, strict=True):
        images[unit][label] += 1
    strata: dict[str, list[str]] = defaultdict(list)
    # Sorted, so that the order in which a file system lists images has no say.
    for unit in sorted(images):
        label = min(images[unit], key=lambda name: (-images[unit][name], name))
        strata[label].append(unit)
    part: dict[str, str] = {}
    for place, label in enumerate(sorted(strata)):
        # A draw for each class: new images of one class leave the split of the others as it is.
        draw = np.random.default_rng([seed, place])
        order = [strata[label][i] for i in draw.permutation(len(strata[label]))]
        part |= _divide(order, {unit: images[unit].total() for unit in order}, shares)
    return [part[unit] for unit in units]


def _divide(units: Sequence[str], sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    total = sum(sizes[unit] for unit in units)
    parts = [name for name in _ORDER if shares.get(name, 0) > 0]
    wanted = {name: total * shares[name] / sum(shares.values()) for name in parts}
    empty, chosen = list(parts), {}
    for place, unit in enumerate(units):
        # As many units are left as parts are empty: each of them has to get one.
        open_parts = empty if empty and len(units) - place <= len(empty) else parts
        name = max(open_parts, key=lambda part: wanted[part])
        wanted[name] -= sizes[unit]
        chosen[unit] = name
        empty = [part for part in empty if part != name]
    return chosen
