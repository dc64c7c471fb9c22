"""Rules on the amount of data and of training: images, patients, volumes, steps, epochs. Pure.

Each measure is checked by itself: 800 epochs of 369 images are many epochs, but only 165 steps of
1,792 images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import LEVELS, Facts, Finding, Level, epochs


@dataclass(frozen=True)
class Bounds:
    """The values below which a measure is a serious risk or a warning."""

    serious: float
    warning: float

    def level(self, value: float) -> Level | None:
        """The level of a value; None where it is large enough."""
        return "serious" if value < self.serious else "warning" if value < self.warning else None


STEPS = Bounds(10_000, 31_250)
"""31,250: MAE's shortest schedule, 100 epochs of 1.28 million images. 10,000: a third of that."""
SEEN = Bounds(12.8e6, 64e6)
"""Half and a tenth of the 128 million images that MAE's shortest schedule sees."""
EPOCHS = Bounds(100, 400)
"""100: MAE's shortest schedule. 400: half of the usual one of MAE and RETFound."""
EPOCHS_ENOUGH = Bounds(64e6, 256e6)
"""Images seen that make up for few epochs: half and twice those of MAE's shortest schedule."""
IMAGES = Bounds(10_000, 50_000)
"""The smallest set on which such pretraining is known to have helped is Stanford Cars, with 8,144 images."""
PATIENTS = Bounds(100, 1_000)
"""Most of RETFound's images are of 37,401 patients. B-scans of one volume are nearly identical."""
VOLUMES = Bounds(200, 2_000)
"""Two eyes of each patient. Used where patients are not known."""
_LENGTH_SOURCE = "MAE, figure 7 and table 8; RETFound, methods: 800 epochs of 736,442 images, 329,000 steps"
_DATA_SOURCE = "RETFound, methods: 736,442 images, most of 37,401 patients; El-Nouby et al. 2021: 8,144"


def check_length(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report too few optimizer steps, images seen or epochs: one finding for all three."""
    batch, run_epochs = config.train.global_batch, epochs(config, facts)
    # 1e-9: a product that should be whole may come out a little larger, and would count as one step more.
    steps = config.train.steps or max(1, math.ceil(run_epochs * facts.samples / batch - 1e-9))
    seen = steps * batch if config.train.steps else run_epochs * facts.samples
    measures = [
        (f"{steps:,} optimizer steps", STEPS.level(steps)),
        (f"{seen:,.0f} images seen", SEEN.level(seen)),
        (f"{run_epochs:.4g} epochs", _epochs_level(config.train.epochs, seen)),
    ]
    yield from _joint_finding(
        measures,
        "train.epochs" if config.train.epochs else "train.steps",
        "Masked pretraining is slow: it still improves between 800 and 1,600 epochs of 1.28 million images",
        _LENGTH_SOURCE,
        _longer(config, facts),
    )


def _epochs_level(set_epochs: float, seen: float) -> Level | None:
    """The level of a schedule in epochs: fewer are enough where a large set gives enough images."""
    if not set_epochs:
        return None
    if set_epochs < EPOCHS.serious and seen < EPOCHS_ENOUGH.serious:
        return "serious"
    return "warning" if set_epochs < EPOCHS.warning and seen < EPOCHS_ENOUGH.warning else None


def _longer(config: PretrainConfig, facts: Facts) -> str:
    """The shortest length without a finding."""
    batch = config.train.global_batch
    if config.train.steps:
        return f"train.steps={math.ceil(max(STEPS.warning, SEEN.warning / batch))} or more"
    needed_epochs = max(SEEN.warning, STEPS.warning * batch) / facts.samples
    needed_epochs = math.ceil(max(EPOCHS.warning, needed_epochs))
    # MAE's longest schedule has 1,600 epochs. No article shows that more help.
    if needed_epochs > 1600:
        return (
            "more images, because no number of epochs makes up for them; or continue from published weights"
        )
    smaller = ", or a smaller train.global_batch" if batch > 256 else ""
    return f"train.epochs={needed_epochs} or more{smaller}"


def check_data_amount(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report too few images, patients or volumes. Counts that are not known are not checked."""
    measures = [(f"{facts.samples:,} images", IMAGES.level(facts.samples))]
    if facts.patients is not None:
        measures.append((f"of {facts.patients:,} patients", PATIENTS.level(facts.patients)))
    elif facts.volumes is not None:
        measures.append((f"of {facts.volumes:,} volumes", VOLUMES.level(facts.volumes)))
    yield from _joint_finding(
        measures,
        "data.shards",
        "A network of this size memorizes so few images, however often it sees them; "
        "slices of one eye are nearly the same image",
        _DATA_SOURCE,
        "more images of more patients, or fine-tune published weights without pretraining",
    )


def _joint_finding(
    measures: Sequence[tuple[str, Level | None]], key: str, reason: str, source: str, remedy: str
) -> Iterator[Finding]:
    """One finding for all measures, with the most serious level; none where every measure is large enough."""
    levels = [level for _, level in measures if level]
    if not levels:
        return
    text = [f"{measure} (too few)" if level else measure for measure, level in measures]
    yield Finding(min(levels, key=LEVELS.index), key, ", ".join(text), reason, source, remedy)
