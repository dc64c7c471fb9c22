"""Splits patients into train, val and test: a pure function of labels, patients and a seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from retfound_dist.listing.split_units import assign_to_parts

_ORDER = ("train", "test", "val")
"""Which part comes first when a class has too few patients for all of them."""


def split_by_unit(
    labels: Sequence[str], units: Sequence[str], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The part of each image. No unit (patient or image) is in two parts; each class is divided by `shares`.

    `units` names the unit of each image. A unit belongs to the class that most of its images have. Within a
    class, units in random order go to the part that lacks most images. The last ones go to parts that are
    still empty.
    """
    images: dict[str, Counter[str]] = defaultdict(Counter)
    for label, unit in zip(labels, units, strict=True):
        images[unit][label] += 1
    strata: dict[str, list[str]] = defaultdict(list)
    # Sorted, so that the split does not depend on the order in which a file system lists images.
    for unit in sorted(images):
        label = min(images[unit], key=lambda name: (-images[unit][name], name))
        strata[label].append(unit)
    part: dict[str, str] = {}
    for class_index, label in enumerate(sorted(strata)):
        # One generator for each class: new images of a class do not change the split of the others.
        generator = np.random.default_rng([seed, class_index])
        order = [strata[label][i] for i in generator.permutation(len(strata[label]))]
        parts = _divide([images[unit].total() for unit in order], shares)
        part |= dict(zip(order, parts, strict=True))
    return [part[unit] for unit in units]


def _divide(sizes: Sequence[int], shares: Mapping[str, float]) -> list[str]:
    """The part of each unit; `sizes`: its images."""
    names = [name for name in _ORDER if shares.get(name, 0) > 0]
    target_sizes = [sum(sizes) * shares[name] / sum(shares.values()) for name in names]
    return [names[place] for place in assign_to_parts(sizes, target_sizes, fill_empty=True)]
