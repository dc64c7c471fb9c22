"""Divides images into subgroups by a column of their list: by its values, or by ranges of numbers.

    data.subgroups = ["sex", "age:0-50,50-70,70+"]

A range a-b holds numbers from a up to, but not including, b. `70+` holds 70 and all larger numbers. Each
image is in exactly one group of a column. Images without a known value are the group `unknown`. With ranges
there are also the groups `outside` (a number in no range) and `not a number`. No image is left out silently.

Shape: N images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.listing.image_lists import join_spellings

OUTSIDE, NOT_A_NUMBER, UNKNOWN = "outside", "not a number", "unknown"
REST_GROUPS = (OUTSIDE, NOT_A_NUMBER, UNKNOWN)
"""Groups of images that no value or range names; the last ones of a column, and never its reference."""
MAX_GROUPS = 20
"""Most groups of a column. A column with more values is a number, a date or a name."""
DESCRIBED_FIELDS = ("eye", "volume", "slice")
"""Facts of every image that are known under these names, whatever the list calls its columns."""
_RANGES = re.compile(r"[\d.,+\-\s]+")
_NUMBER = r"-?\d+(?:\.\d+)?"
_BETWEEN, _FROM = re.compile(rf"({_NUMBER})-({_NUMBER})"), re.compile(rf"({_NUMBER})\+")
_MAX_NAMED = 3


class Described(Protocol):
    """An image with what its set says of it: `LabelledImage` or `ImageDescription`."""

    @property
    def eye(self) -> str | None:
        """`L` or `R`."""

    @property
    def volume(self) -> str | None:
        """The name of its volume."""

    @property
    def slice(self) -> int | None:
        """The place in its volume."""

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Cells of the requested columns."""


@dataclass(frozen=True)
class NumberRange:
    """Numbers from `low` up to, but not including, `high`."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class SubgroupColumn:
    """One entry of `data.subgroups`."""

    column: str
    ranges: tuple[NumberRange, ...] = ()
    """Empty: every value of the column is a group."""


@dataclass(frozen=True)
class Grouping:
    """The groups of images by one column."""

    column: str
    names: tuple[str, ...]
    """In a fixed order: by size, by the alphabet or as the ranges were given, then `REST_GROUPS`. The group
    of a range may have no image."""
    group_N: NDArray[np.int64]
    """The group of each image, an index into `names`."""
    notes: tuple[str, ...] = ()
    """Which spellings were read as one value."""


def parse_subgroups(entries: Sequence[str]) -> tuple[SubgroupColumn, ...]:
    """The columns of `data.subgroups`; ConfigError where an entry is wrong or a column is named twice."""
    columns = tuple(map(_parse_entry, entries))
    for i, column in enumerate(columns):
        if column.column in [other.column for other in columns[:i]]:
            raise ConfigError(f"data.subgroups names the column {column.column!r} twice: keep one of the two")
    return columns


def _parse_entry(entry: str) -> SubgroupColumn:
    """One entry of `data.subgroups`: `sex`, or a column with ranges such as `age:0-50,50+`."""
    name, colon, text = (part.strip() for part in entry.rpartition(":"))
    # A column may have a colon in its name. Only digits and signs after the last colon are ranges.
    if not colon or not _RANGES.fullmatch(text):
        if not entry.strip():
            raise ConfigError('data.subgroups has an empty entry: give names of columns, such as ["sex"]')
        return SubgroupColumn(entry.strip())
    ranges = tuple(_parse_range(part.strip(), entry) for part in text.split(","))
    if not name:
        raise ConfigError(f"data.subgroups: {entry!r} has no column before the colon: give one, such as age")
    for before, after in pairwise(ranges):
        if after.low < before.high:
            raise ConfigError(
                f"data.subgroups: the ranges {before.name} and {after.name} of {entry!r} overlap or fall: "
                "give rising ranges; a range does not include its upper end, as in age:0-50,50-70,70+"
            )
    return SubgroupColumn(name, ranges)


def _parse_range(text: str, entry: str) -> NumberRange:
    if match := _FROM.fullmatch(text):
        return NumberRange(text, float(match[1]), math.inf)
    match = _BETWEEN.fullmatch(text)
    if not match or float(match[1]) >= float(match[2]):
        raise ConfigError(
            f"data.subgroups: {text!r} in {entry!r} is not a range: write it as age:0-50,50-70,70+, "
            "the smaller number first"
        )
    return NumberRange(text, float(match[1]), float(match[2]))


def requested_columns(columns: Sequence[SubgroupColumn]) -> tuple[str, ...]:
    """The columns that a list must have; those of `DESCRIBED_FIELDS` are read in any case."""
    return tuple(column.column for column in columns if column.column not in DESCRIBED_FIELDS)


def check_subgroups(columns: Sequence[SubgroupColumn], images: Sequence[Described], where: str) -> None:
    """DataError where no image has a known value in a column, or where a column has too many values."""
    for column in columns:
        values = {value for image in images if (value := _value(column, image)) is not None}
        if not values:
            raise DataError(
                f"data.subgroups: no image of {where} has a known {column.column!r}: "
                "fill the column, or leave it out of data.subgroups"
            )
        if not column.ranges and len(values) > MAX_GROUPS:
            examples = ", ".join(sorted(values)[:_MAX_NAMED])
            raise DataError(
                f"data.subgroups: {column.column!r} of {where} has {len(values):,} different values "
                f"({examples}, ...), more than {MAX_GROUPS}: give ranges such as "
                f"{column.column}:0-50,50-70,70+, or a column with fewer values"
            )


def group_images(column: SubgroupColumn, images: Sequence[Described]) -> Grouping:
    """The group of each image by one column."""
    values = [_value(column, image) for image in images]
    notes: tuple[str, ...] = ()
    if column.ranges:
        names = tuple(each.name for each in column.ranges)
        labels = [_range_name(column.ranges, value) for value in values]
    else:
        spelling, joined = join_spellings(values)
        names = tuple(sorted(set(spelling.values()), key=_order))
        labels = [UNKNOWN if value is None else spelling[value] for value in values]
        notes = tuple(
            f"{column.column}: {' = '.join(map(repr, group))} are read as one value" for group in joined
        )
    # A value of the column may itself be called "outside".
    names += tuple(name for name in REST_GROUPS if name in labels and name not in names)
    index = {name: i for i, name in enumerate(names)}
    return Grouping(column.column, names, np.array([index[label] for label in labels], np.int64), notes)


def _value(column: SubgroupColumn, image: Described) -> str | None:
    if column.column in DESCRIBED_FIELDS:
        value = getattr(image, column.column)
        return None if value is None else str(value)
    return image.columns.get(column.column)


def _range_name(ranges: Sequence[NumberRange], value: str | None) -> str:
    if value is None:
        return UNKNOWN
    try:
        # Lists from some countries have a decimal comma.
        number = float(value.replace(",", "."))
    except ValueError:
        return NOT_A_NUMBER
    if math.isnan(number):
        return NOT_A_NUMBER
    return next((each.name for each in ranges if each.low <= number < each.high), OUTSIDE)


def _order(name: str) -> tuple[float, str]:
    """Numbers by size, before names by the alphabet."""
    try:
        return float(name), name
    except ValueError:
        return math.inf, name.casefold()
