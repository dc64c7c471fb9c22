"""`--html`: one self-contained page to look through predictions, the least certain first.

`page_content.py` says what it shows, for each kind of task.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from retfound_dist.evaluate.pixels.image_encoding import data_uri
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.io import output_files
from retfound_dist.runtime.humanize import plural

BINS = 10
EYES = {"L": "left eye", "R": "right eye"}
NOT_A_DEVICE = (
    "This is research software and not a medical device. Do not use its predictions to diagnose or to treat."
)


@dataclass(frozen=True)
class Bar:
    """A class, label or grade of an image, drawn as a bar."""

    name: str
    probability: float
    is_predicted: bool


@dataclass(frozen=True)
class PageImage:
    """One image of the page."""

    key: str
    facts: str
    """Patient, eye, volume and slice, as far as they are known, in one line."""
    title: str
    """What is predicted."""
    groups: tuple[str, ...]
    """By which of `PageSummary.groups` the image is chosen: its class, its labels or its grade."""
    bars: Sequence[Bar]
    uncertainty: float | None
    """0 to 1; None for a number."""
    seed_spread: str
    """Standard deviation over seeds; empty with one seed."""
    picture: str
    """`image_encoding.encode_picture` of the network's input."""
    maps: Sequence[tuple[str, str]] = ()
    """Caption and picture of each heat map."""


@dataclass(frozen=True)
class CountTable:
    """How many images there are of each kind."""

    title: str
    note: str
    first: str
    """Title of the first column."""
    rows: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class PageWords:
    """Sentences above the cards."""

    order: str
    """What the cards are sorted by."""
    spread: str
    """What the spread over seeds is; empty with one seed."""
    maps: str
    """What heat maps show."""


@dataclass(frozen=True)
class PageSummary:
    """What the page says of all images, also of those that it does not show."""

    source: str
    """The images, as the command named them."""
    classifier: str
    """Its URL."""
    total: int
    """Images that are predicted."""
    tables: Sequence[CountTable]
    groups: Sequence[str]
    """What cards can be chosen by."""
    skipped: Sequence[tuple[str, str]]
    """(key, reason) of the images that cannot be read."""
    words: PageWords
    sentences: Sequence[str] = field(default=())
    """On the scores of the classifier and its probabilities."""


def image_facts_line(patient: str | None, eye: str | None, volume: str | None, place: int | None) -> str:
    """Patient, eye, volume and slice in one line; empty where nothing is known."""
    parts = [
        f"patient {patient}" if patient is not None else "",
        EYES.get(eye or "", ""),
        f"volume {volume}" if volume is not None else "",
        f"slice {place}" if place is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def prediction_page(summary: PageSummary, images: Sequence[PageImage]) -> str:
    """The page. `images`: those to show, in their order on the page."""
    loader = ChoiceLoader(
        [
            PackageLoader("retfound_dist.prediction.drawing", "."),
            PackageLoader("retfound_dist.evaluate.report", "."),
        ]
    )
    # StrictUndefined raises where a name is missing in the context. Jinja's default would leave a gap.
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("prediction.html.j2").render(
        mark=output_files.mark("predict"),
        title=f"Predictions for {plural(summary.total, 'image')}",
        summary=summary,
        sentences=[*summary.sentences, NOT_A_DEVICE],
        total=summary.total,
        cards=[_card(image) for image in images],
        shown_groups=[name for name in summary.groups if any(name in image.groups for image in images)],
        has_maps=any(image.maps for image in images),
    )


def certainty_bins(certainties: Sequence[float]) -> list[tuple[str, int]]:
    """(range, images) of ten equal ranges of a probability, from the lowest range that has images."""
    counts = Counter(min(int(value * BINS), BINS - 1) for value in certainties)
    # The highest of C probabilities is at least 1/C: lower ranges are always empty.
    lowest = min(counts, default=0)
    return [
        (f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}", counts[place]) for place in range(lowest, BINS)
    ]


def number_bins(numbers_N: Floats) -> list[tuple[str, int]]:
    """(range, images) of equal ranges with round limits, at most 11, that hold all numbers."""
    if not len(numbers_N):
        return []
    low, high = float(numbers_N.min()), float(numbers_N.max())
    if low == high:
        return [(_short(low), len(numbers_N))]
    # The next of 1, 2 or 5 times a power of ten.
    power = 10.0 ** math.floor(math.log10((high - low) / BINS))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power * BINS >= high - low)
    first = math.floor(low / step)
    edges = [place * step for place in range(first, math.floor(high / step) + 2)]
    counts, _ = np.histogram(numbers_N, edges)
    return [
        (f"{_short(begin)} to {_short(end)}", int(count))
        for count, begin, end in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _short(value: float) -> str:
    return f"{value:.6g}".replace("-", "\u2212")


def _card(image: PageImage) -> dict[str, Any]:
    pictures = [("image", image.picture), *image.maps]
    return {"image": image, "tiles": [(caption, data_uri(picture)) for caption, picture in pictures]}
