"""Rules on how much there is to learn from and how long: images, patients, volumes; steps, epochs. Pure.

Each measure is judged by itself: 800 epochs of 369 images are many epochs, and still 165 steps of 1,792.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import LEVELS, Facts, Finding, Level, epochs


@dataclass(frozen=True)
class Bounds:
    """Below `serious` and `warning` a measure is one."""

    serious: float
    warning: float

    def level(self, value: float) -> Level | None:
        """How grave a value is."""
        return "serious" if value < self.serious else "warning" if value < self.warning else None


STEPS = Bounds(10_000, 31_250)
"""MAE's shortest schedule, 100 epochs of 1.28 million images, has 31,250 steps; and a third of that."""
SEEN = Bounds(12.8e6, 64e6)
"""MAE's shortest schedule sees 128 million images: half of it, and a tenth."""
EPOCHS = Bounds(100, 400)
"""MAE's shortest schedule, and half of its and RETFound's usual one."""
EPOCHS_ENOUGH = Bounds(64e6, 256e6)
"""Images seen from which so few epochs are no fault: half and twice what MAE's shortest schedule sees."""
IMAGES = Bounds(10_000, 50_000)
"""The smallest set that such pretraining is known to have helped on has 8,144 images, Stanford Cars."""
PATIENTS = Bounds(100, 1_000)
"""RETFound's images are of 37,401 patients for the most part; B-scans of one volume are nearly copies."""
VOLUMES = Bounds(200, 2_000)
"""Two eyes a patient; judged where patients are not known."""
_LENGTH_SOURCE = "MAE, figure 7 and table 8; RETFound, methods: 800 epochs of 736,442 images, 329,000 steps"
_DATA_SOURCE = "RETFound, methods: 736,442 images, most of 37,401 patients; El-Nouby et al. 2021: 8,144"


def length(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Too few optimizer steps, images seen or epochs, each by itself; one finding tells all."""
    batch, many = config.train.global_batch, epochs(config, facts)
    # 1e-9: a product that should be whole may come out a little larger, and would count as one step more.
    steps = config.train.steps or max(1, math.ceil(many * facts.samples / batch - 1e-9))
    seen = steps * batch if config.train.steps else many * facts.samples
    measures = [
        (f"{steps:,} optimizer steps", STEPS.level(steps)),
        (f"{seen:,.0f} images seen", SEEN.level(seen)),
        (f"{many:.4g} epochs", _epochs_level(config.train.epochs, seen)),
    ]
    yield from _gravest(
        measures,
        "train.epochs" if config.train.epochs else "train.steps",
        "Masked pretraining is slow: it still gains between 800 and 1,600 epochs of 1.28 million images",
        _LENGTH_SOURCE,
        _longer(config, facts),
    )


def _epochs_level(many: float, seen: float) -> Level | None:
    """Of a schedule in epochs: of a large set fewer do, if only images enough are seen."""
    if not many:
        return None
    if many < EPOCHS.serious and seen < EPOCHS_ENOUGH.serious:
        return "serious"
    return "warning" if many < EPOCHS.warning and seen < EPOCHS_ENOUGH.warning else None


def _longer(config: PretrainConfig, facts: Facts) -> str:
    """A length at which nothing is said of it."""
    batch = config.train.global_batch
    if config.train.steps:
        return f"train.steps={math.ceil(max(STEPS.warning, SEEN.warning / batch))} or more"
    wanted = max(SEEN.warning, STEPS.warning * batch) / facts.samples
    wanted = math.ceil(max(EPOCHS.warning, wanted))
    # MAE's longest schedule has 1,600 epochs. Nobody has shown that more of them help.
    if wanted > 1600:
        return "more images: no such number of epochs makes up for them; or go on from published weights"
    smaller = ", or a smaller train.global_batch" if batch > 256 else ""
    return f"train.epochs={wanted} or more{smaller}"


def how_much_data(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Too few images, or too few people or eyes behind them; what is not known is not judged."""
    measures = [(f"{facts.samples:,} images", IMAGES.level(facts.samples))]
    if facts.patients is not None:
        measures.append((f"of {facts.patients:,} patients", PATIENTS.level(facts.patients)))
    elif facts.volumes is not None:
        measures.append((f"of {facts.volumes:,} volumes", VOLUMES.level(facts.volumes)))
    yield from _gravest(
        measures,
        "data.shards",
        "A network of this size learns so few images by heart, however often it sees them; "
        "slices of one eye are nearly the same image",
        _DATA_SOURCE,
        "more images of more people, or no pretraining: fine-tune published weights",
    )


def _gravest(
    measures: Sequence[tuple[str, Level | None]], key: str, why: str, source: str, instead: str
) -> Iterator[Finding]:
    """One finding of the gravest level; those measures that are short come first."""
    short = [level for _, level in measures if level]
    if not short:
        return
    text = [f"{measure} (too few)" if level else measure for measure, level in measures]
    yield Finding(min(short, key=LEVELS.index), key, ", ".join(text), why, source, instead)
