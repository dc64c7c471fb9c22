"""Counts images of a source whose names look like a person, a date or an identifier (pure).

A long number is an identifier, unless the numbers of a source that stand behind the same text run on like a
counter's. Six digits are a date where all such numbers of a source are dates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from shards.people.dates_and_numbers import (
    DAYS_DIGITS,
    holds_date,
    holds_identifier,
    is_scheme,
    is_short_date,
    long_numbers,
    may_hold_date,
    may_hold_identifier,
)
from shards.people.person_names import holds_person, is_person, is_surely_person

NAME, DATE, IDENTIFIER = "name", "date", "identifier"
KINDS = (NAME, DATE, IDENTIFIER)
DENSE, COUNTED = 10, 5
"""Numbers that span at most so many times their count are a counter, from so many of them on."""
_ZEROS = str.maketrans("123456789", "000000000")
FEW_CLASSES, MAX_CLASSES = 3, 30
"""Of fewer labels than the first, most may look like people by chance. More than the second are no classes:
each is judged like the name of a file."""


@dataclass(frozen=True)
class NameSigns:
    """How many images were looked at, and how many of them have each kind of sign."""

    images: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_harmless(self) -> bool:
        """Whether nothing looks like a person."""
        return not any(self.kinds.values())

    def line(self) -> str:
        """`3 like a name, 1 like a date`; empty where nothing does."""
        kinds = [kind for kind in KINDS if self.kinds.get(kind)]
        return ", ".join(f"{self.kinds[kind]:,} like {_article(kind)}" for kind in kinds)


@dataclass(slots=True)
class _Numbers:
    """The numbers of one length behind one text."""

    count: int = 0
    dates: int = 0
    lowest: int = 0
    highest: int = 0

    def add(self, digits: str) -> None:
        value = int(digits)
        self.lowest = min(self.lowest, value) if self.count else value
        self.highest = max(self.highest, value)
        self.count += 1
        self.dates += len(digits) == DAYS_DIGITS and is_short_date(digits)

    @property
    def is_counter(self) -> bool:
        return self.count >= COUNTED and self.highest - self.lowest <= DENSE * self.count

    def kind(self, digits: int) -> str | None:
        if self.is_counter:
            return None
        if digits == DAYS_DIGITS:
            return DATE if self.count >= 3 and self.dates == self.count else None
        return IDENTIFIER


class SignCounter:
    """Counts the signs in names that are added, each with the images it stands for."""

    def __init__(self) -> None:
        self._images = 0
        self._kinds = dict.fromkeys(KINDS, 0)
        self._numbers: dict[tuple[str, int], _Numbers] = {}

    def add(self, parts: Sequence[str], cell: str | None = None) -> None:
        """An image by the names of its file and folders, and by the cell that names its patient."""
        self._images += 1
        kinds: set[str] = set()
        for part in parts:
            kinds |= _signs(part)
            self._add_numbers(part)
        # OCTDL's and OCT2017's patients were numbered for publishing: the number in a list tells no more.
        if cell is not None and not (is_scheme(parts[-1]) and cell.isdigit()):
            kinds |= _signs_of_cell(cell)
            self._add_numbers(cell)
        for kind in kinds:
            self._kinds[kind] += 1

    def signs(self) -> NameSigns:
        """The counts over all names added so far."""
        kinds = dict(self._kinds)
        for (_, digits), numbers in self._numbers.items():
            if kind := numbers.kind(digits):
                kinds[kind] += numbers.count
        # A name may hold several numbers; its image counts once.
        return NameSigns(
            self._images, {kind: min(count, self._images) for kind, count in kinds.items() if count}
        )

    def _add_numbers(self, part: str) -> None:
        for before, digits in _long_numbers(part):
            # Apart by what stands before them: only numbers behind the same text run on as one counter.
            self._numbers.setdefault((before, len(digits)), _Numbers()).add(digits)


def labels_of_people(labels: Iterable[str]) -> frozenset[str]:
    """The labels that look like people; all of them where more than half do."""
    known = frozenset(labels)
    loosely = frozenset(label for label in known if _is_person_label(label))
    if len(known) >= FEW_CLASSES and 2 * len(loosely) > len(known):
        return known  # no set of classes has so many: of the names of diseases three in a hundred look so
    if len(known) > MAX_CLASSES:
        return loosely
    surely = frozenset(label for label in known if _is_surely_person_label(label))
    return known if 2 * len(surely) > len(known) else surely


def is_name_of_person(text: str) -> bool:
    """Whether the name of a folder that stands for a whole source looks like a person, a date or a number."""
    return _is_surely_person_label(text) or bool([n for _, n in long_numbers(text) if len(n) > DAYS_DIGITS])


def name_parts(path: str, label: str | None) -> list[str]:
    """The names of folders and file in a path. The class's folder is left out: it is judged as a label."""
    folder, name = os.path.split(path)
    folders = [part for part in folder.split("/") if part and part != label]
    return [*folders, os.path.splitext(name)[0]]


def _signs(part: str) -> frozenset[str]:
    known, may_be_date, may_be_identifier, _ = _shape(part.translate(_ZEROS))
    if not (may_be_date or may_be_identifier) or is_scheme(part):
        return known
    date = {DATE} if may_be_date and holds_date(part) else frozenset()
    return known | date | ({IDENTIFIER} if may_be_identifier and holds_identifier(part) else frozenset())


@lru_cache(maxsize=4096)
def _signs_of_cell(cell: str) -> frozenset[str]:
    return _signs(cell) | ({NAME} if is_person(cell) else frozenset())


def _long_numbers(part: str) -> tuple[tuple[str, str], ...]:
    if not _shape(part.translate(_ZEROS))[3] or is_scheme(part):
        return ()
    return tuple(long_numbers(part))


@lru_cache(maxsize=65_536)
def _shape(zeros: str) -> tuple[frozenset[str], bool, bool, bool]:
    """What a name tells whatever its digits are: a person, and whether it may hold a date, an identifier, a
    long number. Millions of names have few shapes."""
    person = frozenset((NAME,)) if holds_person(zeros) else frozenset()
    return person, may_hold_date(zeros), may_hold_identifier(zeros), "0" * DAYS_DIGITS in zeros


def _is_surely_person_label(label: str) -> bool:
    return is_surely_person(label) or holds_date(label) or holds_identifier(label)


def _is_person_label(label: str) -> bool:
    return bool(_signs(label))


def _article(kind: str) -> str:
    return f"an {kind}" if kind == IDENTIFIER else f"a {kind}"
