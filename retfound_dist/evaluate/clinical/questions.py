"""The two-class questions of a classifier: is the image of one of these classes, or of another one?

Without `clinical.positive` each class is a question of its own, against the rest. This holds for two classes
too: which of them is the disease cannot be read from their names.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import Clinical
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats, Labels

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Question:
    """Is an image of one of the positive classes?"""

    classes: tuple[str, ...]
    """The positive classes."""
    indices: tuple[int, ...]
    """Their class indices."""

    @property
    def name(self) -> str:
        """`AMD or DME`."""
        return " or ".join(self.classes)

    def truth(self, labels_N: Labels) -> NDArray[np.bool_]:
        """(N,): which images are positive."""
        return np.isin(labels_N, self.indices)

    def score(self, probabilities_NC: Floats) -> Floats:
        """(N,): the probability of the positive classes together, rounded."""
        score_N: Floats = probabilities_NC[:, list(self.indices)].sum(1).round(DIGITS)
        return score_N

    def prevalence(self, stated: Mapping[str, float]) -> float | None:
        """The stated prevalence of the positive classes together; None where one of them has none."""
        if not all(name in stated for name in self.classes):
            return None
        return sum(stated[name] for name in self.classes)


def check_clinical(settings: Clinical, classes: Sequence[str]) -> None:
    """ConfigError where the settings name a class that the set has not, or where all classes are positive."""
    for setting, names in (("positive", settings.positive), ("prevalence", tuple(settings.prevalence))):
        if unknown := [name for name in names if name not in classes]:
            raise ConfigError(
                f"clinical.{setting} names {', '.join(unknown)}, but the labelled set has no such class: "
                f"its classes are {', '.join(classes)}"
            )
    together = sum(settings.prevalence.values())
    missing = [name for name in classes if name not in settings.prevalence]
    # Of all classes the shares are those of everybody: 1. Less leaves room for people of no class.
    if together > 1 + _ROUNDING or (missing and together > 1 - _ROUNDING):
        others = f" less than 1 without {', '.join(missing)}" if missing else " 1"
        raise ConfigError(
            f"clinical.prevalence: the classes have a prevalence of {together:g} together: "
            f"give shares of all people, which sum to{others}"
        )
    if set(settings.positive) == set(classes):
        raise ConfigError(
            f"clinical.positive names all classes ({', '.join(classes)}): leave out those that are healthy"
        )


def list_questions(settings: Clinical, classes: Sequence[str]) -> tuple[Question, ...]:
    """The questions about these classes; empty where none of them is positive, or all of them are.

    `classes`: those of the set, or of an external set, which may have fewer.
    """
    names = tuple(classes)
    groups: list[tuple[str, ...]] = [(name,) for name in names]
    if settings.positive:
        groups = [tuple(name for name in names if name in settings.positive)]
    return tuple(
        Question(group, tuple(map(names.index, group))) for group in groups if 0 < len(group) < len(names)
    )
