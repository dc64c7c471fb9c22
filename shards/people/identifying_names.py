"""Counts images of a source whose names look like a person, a date or an identifier (pure).

A long number is an identifier, unless the source's numbers after the same text are consecutive like a
counter. Six digits are a date if all such numbers of a source are dates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from shards.people.dates_and_numbers import (
    SHORT_DATE_DIGITS,
    holds_date,
    holds_identifier,
    is_published_name,
    is_short_date,
    long_numbers,
    may_hold_date,
    may_hold_identifier,
)
from shards.people.person_names import holds_person, is_person, is_surely_person

NAME, DATE, IDENTIFIER = "name", "date", "identifier"
KINDS = (NAME, DATE, IDENTIFIER)
MAX_COUNTER_GAP, MIN_COUNTER_SIZE = 10, 5
"""At least so many numbers are a counter if they are at most so far apart on average."""
_ZEROS = str.maketrans("123456789", "000000000")
MIN_CLASSES, MAX_CLASSES = 3, 30
"""With fewer labels most of them may look like people by chance. More labels are not classes, so that each is
checked by itself."""


@dataclass(frozen=True)
class NameSigns:
    """The number of images, and how many of them have a name that looks like each kind."""

    images: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_harmless(self) -> bool:
        """Whether no name looks like a person, a date or an identifier."""
        return not any(self.kinds.values())

    def in_words(self) -> str:
        """Returns `3 like a name, 1 like a date`; empty if there are none."""
        kinds = [kind for kind in KINDS if self.kinds.get(kind)]
        return ", ".join(f"{self.kinds[kind]:,} like {_article(kind)}" for kind in kinds)


@dataclass(slots=True)
class _Numbers:
    """The numbers of one length after the same text."""

    count: int = 0
    dates: int = 0
    lowest: int = 0
    highest: int = 0

    def add(self, digits: str) -> None:
        value = int(digits)
        self.lowest = min(self.lowest, value) if self.count else value
        self.highest = max(self.highest, value)
        self.count += 1
        self.dates += len(digits) == SHORT_DATE_DIGITS and is_short_date(digits)

    @property
    def is_counter(self) -> bool:
        return self.count >= MIN_COUNTER_SIZE and self.highest - self.lowest <= MAX_COUNTER_GAP * self.count

    def kind(self, digits: int) -> str | None:
        """Returns what numbers of so many digits look like: a date, an identifier, or None for a counter."""
        if self.is_counter:
            return None
        if digits == SHORT_DATE_DIGITS:
            return DATE if self.count >= 3 and self.dates == self.count else None
        return IDENTIFIER


class SignCounter:
    """Counts images whose names look like a person, a date or an identifier."""

    def __init__(self) -> None:
        self._images = 0
        self._kinds = dict.fromkeys(KINDS, 0)
        self._numbers: dict[tuple[str, int], _Numbers] = {}

    def add(self, parts: Sequence[str], cell: str | None = None) -> None:
        """Add an image: the names of its file and folders, and its patient's cell in a list."""
        self._images += 1
        kinds: set[str] = set()
        for part in parts:
            kinds |= _find_signs(part)
            self._add_numbers(part)
        # The patient numbers of OCTDL and OCT2017 were made for publishing, and a list may repeat them.
        if cell is not None and not (is_published_name(parts[-1]) and cell.isdigit()):
            kinds |= _find_signs_in_cell(cell)
            self._add_numbers(cell)
        for kind in kinds:
            self._kinds[kind] += 1

    def signs(self) -> NameSigns:
        """Returns the counts over all images added so far."""
        kinds = dict(self._kinds)
        for (_, digits), numbers in self._numbers.items():
            if kind := numbers.kind(digits):
                kinds[kind] += numbers.count
        # A name may hold several numbers, but its image counts once.
        return NameSigns(
            self._images, {kind: min(count, self._images) for kind, count in kinds.items() if count}
        )

    def _add_numbers(self, part: str) -> None:
        for before, digits in _long_numbers(part):
            # Grouped by the text before them, because a counter's numbers follow the same text.
            self._numbers.setdefault((before, len(digits)), _Numbers()).add(digits)


def labels_of_people(labels: Iterable[str]) -> frozenset[str]:
    """Returns the labels that look like people; all labels if more than half do."""
    all_labels = frozenset(labels)
    likely = frozenset(label for label in all_labels if _is_likely_person(label))
    if len(all_labels) >= MIN_CLASSES and 2 * len(likely) > len(all_labels):
        return all_labels  # these are no classes: only three in a hundred names of diseases look like people
    if len(all_labels) > MAX_CLASSES:
        return likely
    certain = frozenset(label for label in all_labels if _is_certain_person(label))
    return all_labels if 2 * len(certain) > len(all_labels) else certain


def is_name_of_person(text: str) -> bool:
    """Whether a source's folder name looks like a person, a date or a hospital's number."""
    return _is_certain_person(text) or bool([n for _, n in long_numbers(text) if len(n) > SHORT_DATE_DIGITS])


def name_parts(path: str, label: str | None) -> list[str]:
    """Returns the names of folders and file in a path, without the class folder: it is checked as a label."""
    folder, name = os.path.split(path)
    folders = [part for part in folder.split("/") if part and part != label]
    return [*folders, os.path.splitext(name)[0]]


def _find_signs(part: str) -> frozenset[str]:
    """Returns the kinds of identifying text that a part of a name looks like."""
    certain_signs, may_be_date, may_be_identifier, _ = _shape(part.translate(_ZEROS))
    if not (may_be_date or may_be_identifier) or is_published_name(part):
        return certain_signs
    date = {DATE} if may_be_date and holds_date(part) else frozenset()
    identifier = {IDENTIFIER} if may_be_identifier and holds_identifier(part) else frozenset()
    return certain_signs | date | identifier


@lru_cache(maxsize=4096)
def _find_signs_in_cell(cell: str) -> frozenset[str]:
    return _find_signs(cell) | ({NAME} if is_person(cell) else frozenset())


def _long_numbers(part: str) -> tuple[tuple[str, str], ...]:
    if not _shape(part.translate(_ZEROS))[3] or is_published_name(part):
        return ()
    return tuple(long_numbers(part))


@lru_cache(maxsize=65_536)
def _shape(zeros: str) -> tuple[frozenset[str], bool, bool, bool]:
    """Whether a name holds a person, and whether it may hold a date, an identifier or a long number.

    The digits do not matter here. Millions of names have few such shapes, so the result is cached."""
    person = frozenset((NAME,)) if holds_person(zeros) else frozenset()
    return person, may_hold_date(zeros), may_hold_identifier(zeros), "0" * SHORT_DATE_DIGITS in zeros


def _is_certain_person(label: str) -> bool:
    return is_surely_person(label) or holds_date(label) or holds_identifier(label)


def _is_likely_person(label: str) -> bool:
    return bool(_find_signs(label))


def _article(kind: str) -> str:
    return f"an {kind}" if kind == IDENTIFIER else f"a {kind}"
