"""Detects labels that are not classes: ages, dates, several classes in one cell, one class for each image.

`label_problems(labels)` returns a sentence for each problem. Grades such as 0 to 4 are classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

MAX_CODES = 10
"""Most different numbers that count as grades. More are a measurement."""
MAX_CODE_SPAN = 20
"""Largest difference between grades. With a larger one the numbers are a measurement."""
MAX_CLASSES = 100
"""Most classes. More different labels are names of patients, volumes or files."""
_MAX_NAMED = 4
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( .*)?|(19|20)\d{6}"
)
_YEAR = re.compile(r"(19|20)\d\d")
_NO_LABEL = frozenset(("nan", "na", "n/a", "#n/a", "null", "?", "-", "--"))
# Three levels of evidence that a label joins several classes. "Macular degeneration, wet" also has a comma,
# and most names have a space: these count only where the parts are labels too.
_CERTAIN_SEPARATOR = re.compile(r"[|;]")
"""No class name contains these."""
_LIKELY_SEPARATOR = re.compile(r"\s*[,+&]\s*")
_POSSIBLE_SEPARATOR = re.compile(r"\s*/\s*|\s+and\s+|\s+")


def label_problems(labels: Iterable[str] | Mapping[str, int]) -> list[str]:
    """The reasons why these labels are not classes, a sentence for each.

    `labels`: one label for each image, or label -> number of images.
    """
    counts = labels if isinstance(labels, Mapping) else Counter(labels)
    sentences = [
        *_spelling_problems(counts),
        *_joined_classes(counts),
        *_date_problems(counts),
        *_missing_labels(counts),
    ]
    # Measurements are also many different labels: only one of these two problems is reported.
    return sentences + (_measurements(counts) or _too_many_classes(counts))


def _spelling_problems(counts: Mapping[str, int]) -> list[str]:
    # NFKC first: full-width letters and ligatures look the same on a screen.
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        spellings["".join(unicodedata.normalize("NFKC", label).split()).casefold()].append(label)
    return [
        f"{' and '.join(map(repr, names))} differ only by capitals or spaces: give them one spelling"
        for names in spellings.values()
        if len(names) > 1
    ]


def _joined_classes(counts: Mapping[str, int]) -> list[str]:
    joined = [label for label in sorted(counts) if _joins_classes(label, counts)]
    if not joined:
        return []
    return [
        f"{_some_names(joined)} {'are' if len(joined) > 1 else 'is'} several classes in one label "
        f"({sum(counts[label] for label in joined):,} images): give each image one class, or leave these out"
    ]


def _joins_classes(label: str, counts: Mapping[str, int]) -> bool:
    """Whether a label names several classes, such as `DME, CNV`. `counts`: images of each label."""
    if re.fullmatch(r"[\[({].*,.*[\])}]", label):
        return True
    if _CERTAIN_SEPARATOR.search(label):
        return sum(bool(part.strip()) for part in _CERTAIN_SEPARATOR.split(label)) > 1
    other_classes = {name.casefold() for name in counts} - {label.casefold()}
    for pattern, enough in ((_LIKELY_SEPARATOR, any), (_POSSIBLE_SEPARATOR, all)):
        parts = [part.casefold() for part in pattern.split(label) if part]
        if len(parts) > 1 and enough(part in other_classes for part in parts):
            return True
    return False


def _date_problems(counts: Mapping[str, int]) -> list[str]:
    dates = [label for label in sorted(counts) if _DATE.fullmatch(label)]
    if dates:
        return [f"{_some_names(dates)}: dates are not classes: name the column of the diagnosis 'label'"]
    if len(counts) > 2 and all(_YEAR.fullmatch(label) for label in counts):
        return [
            f"{_some_names(sorted(counts))}: years are not classes: name the column of the diagnosis 'label'"
        ]
    return []


def _missing_labels(counts: Mapping[str, int]) -> list[str]:
    missing = [label for label in sorted(counts) if label.casefold() in _NO_LABEL]
    if not missing:
        return []
    return [
        f"{_some_names(missing)} means that there is no label: "
        "leave the cell empty, then the image is left out"
    ]


def _measurements(counts: Mapping[str, int]) -> list[str]:
    """A complaint where the labels look like a measurement, such as an age; else an empty list."""
    numbers = [label for label in counts if _NUMBER.fullmatch(label)]
    # Half of the labels are enough: a column of ages may have "unknown" among its numbers.
    if 2 * len(numbers) < len(counts) or len(numbers) < 2:
        return []
    values = [float(label.replace(",", ".")) for label in numbers]
    are_integers = all(value.is_integer() for value in values)
    span = max(values) - min(values)
    if are_integers and len(numbers) <= MAX_CODES and span <= MAX_CODE_SPAN:
        return []
    summary = f"{len(numbers):,} different numbers from {min(values):g} to {max(values):g}"
    return [
        f"the labels are {summary}: a measurement such as an age is not a class; name the column of "
        "the diagnosis 'label', or divide the numbers into a few groups"
    ]


def _too_many_classes(counts: Mapping[str, int]) -> list[str]:
    images, classes = sum(counts.values()), len(counts)
    has_few_repeats = (classes > 5 and 2 * classes > images) or (classes > 30 and 5 * classes > images)
    if not has_few_repeats and classes <= MAX_CLASSES:
        return []
    return [
        f"{images:,} images have {classes:,} different labels ({_some_names(sorted(counts))}): these are "
        "probably images, volumes or patients, not classes; name the column of the diagnosis 'label'"
    ]


def _some_names(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_MAX_NAMED])) + (", ..." if len(names) > _MAX_NAMED else "")
