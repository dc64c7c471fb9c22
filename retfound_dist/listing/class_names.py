"""Finds labels that are not classes: ages, dates, several classes in one cell, a class for every image.

`doubts(labels)` returns a sentence for each problem. Grades such as 0 to 4 are classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

MAX_CODES = 10
"""More different numbers than this are a measurement, not grades."""
MAX_CODE_SPAN = 20
"""Numbers that lie further apart than this are a measurement, not grades."""
MAX_CLASSES = 100
"""More classes than this are names of patients, volumes or files."""
_NAMED = 4
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( .*)?|(19|20)\d{6}"
)
_YEAR = re.compile(r"(19|20)\d\d")
_NO_LABEL = frozenset(("nan", "na", "n/a", "#n/a", "null", "?", "-", "--"))
# Three levels of evidence that a label joins several classes. A comma also stands in "Macular degeneration,
# wet", and a space in most names: these count only where the parts are labels themselves.
_CERTAIN = re.compile(r"[|;]")
"""No class name contains these."""
_LIKELY = re.compile(r"\s*[,+&]\s*")
_POSSIBLE = re.compile(r"\s*/\s*|\s+and\s+|\s+")


def doubts(labels: Iterable[str] | Mapping[str, int]) -> list[str]:
    """Why these labels are not classes, a sentence for each reason.

    `labels`: one label for each image, or label -> number of images.
    """
    counts = labels if isinstance(labels, Mapping) else Counter(labels)
    sentences = [
        *_same(counts),
        *_several(counts),
        *_dates(counts),
        *_missing(counts),
    ]
    # Measurements are also many different labels: one sentence about one fault.
    return sentences + (_measured(counts) or _too_many(counts))


def _same(counts: Mapping[str, int]) -> list[str]:
    # NFKC first: full-width letters and ligatures look the same on screen.
    spelt: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        spelt["".join(unicodedata.normalize("NFKC", label).split()).casefold()].append(label)
    return [
        f"{' and '.join(map(repr, names))} differ only by capitals or spaces: give them one spelling"
        for names in spelt.values()
        if len(names) > 1
    ]


def _several(counts: Mapping[str, int]) -> list[str]:
    joined = [label for label in sorted(counts) if _is_several(label, counts)]
    if not joined:
        return []
    return [
        f"{_some(joined)} {'are' if len(joined) > 1 else 'is'} several classes in one label "
        f"({sum(counts[label] for label in joined):,} images): give each image one class, or leave these out"
    ]


def _is_several(label: str, counts: Mapping[str, int]) -> bool:
    if re.fullmatch(r"[\[({].*,.*[\])}]", label):
        return True
    if _CERTAIN.search(label):
        return sum(bool(part.strip()) for part in _CERTAIN.split(label)) > 1
    known = {name.casefold() for name in counts} - {label.casefold()}
    for pattern, enough in ((_LIKELY, any), (_POSSIBLE, all)):
        parts = [part.casefold() for part in pattern.split(label) if part]
        if len(parts) > 1 and enough(part in known for part in parts):
            return True
    return False


def _dates(counts: Mapping[str, int]) -> list[str]:
    dates = [label for label in sorted(counts) if _DATE.fullmatch(label)]
    if dates:
        return [f"{_some(dates)}: dates are no classes: name the column of the diagnosis 'label'"]
    if len(counts) > 2 and all(_YEAR.fullmatch(label) for label in counts):
        return [f"{_some(sorted(counts))}: years are no classes: name the column of the diagnosis 'label'"]
    return []


def _missing(counts: Mapping[str, int]) -> list[str]:
    missing = [label for label in sorted(counts) if label.casefold() in _NO_LABEL]
    if not missing:
        return []
    return [f"{_some(missing)} says that there is no label: leave the cell empty, the image is then left out"]


def _measured(counts: Mapping[str, int]) -> list[str]:
    numbers = [label for label in counts if _NUMBER.fullmatch(label)]
    # Half of the labels are enough: a column of ages has an "unknown" among its numbers.
    if 2 * len(numbers) < len(counts) or len(numbers) < 2:
        return []
    values = [float(label.replace(",", ".")) for label in numbers]
    whole = all(value.is_integer() for value in values)
    span = max(values) - min(values)
    if whole and len(numbers) <= MAX_CODES and span <= MAX_CODE_SPAN:
        return []
    summary = f"{len(numbers):,} different numbers from {min(values):g} to {max(values):g}"
    return [
        f"the labels are {summary}: a measurement such as an age is no class; name the column of the "
        "diagnosis 'label', or put the numbers into a few groups"
    ]


def _too_many(counts: Mapping[str, int]) -> list[str]:
    images, classes = sum(counts.values()), len(counts)
    few = (classes > 5 and 2 * classes > images) or (classes > 30 and 5 * classes > images)
    if not few and classes <= MAX_CLASSES:
        return []
    return [
        f"{images:,} images have {classes:,} different labels ({_some(sorted(counts))}): these look like "
        "names of images, volumes or patients, not like classes; name the column of the diagnosis 'label'"
    ]


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
