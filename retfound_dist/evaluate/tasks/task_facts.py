"""What a task predicts: its targets, the outputs of the network, and the scores of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retfound_dist.evaluate.data.labelled_set import LabelledSet

MULTILABEL, REGRESSION, ORDINAL = "multilabel", "regression", "ordinal"
KINDS = (MULTILABEL, REGRESSION, ORDINAL)
SCORES = {
    MULTILABEL: ("auroc", "aupr", "log_loss"),
    REGRESSION: ("mae", "rmse", "r2", "concordance"),
    ORDINAL: ("quadratic_kappa", "accuracy", "mae_grades"),
}
"""The scores of each kind, in the order of tables."""
DECISIVE = {
    MULTILABEL: ("auroc", "aupr"),
    REGRESSION: ("mae", "concordance"),
    ORDINAL: ("quadratic_kappa", "mae_grades"),
}
"""The scores by which rows of a comparison are compared."""
VAL_SCORE = {MULTILABEL: "auroc", REGRESSION: "mae", ORDINAL: "quadratic_kappa"}
"""The score on val that chooses the epoch."""
SCORE_LABELS = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "log_loss": "log loss",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "concordance": "concordance",
    "quadratic_kappa": "quadratic kappa",
    "accuracy": "accuracy",
    "mae_grades": "mean error in grades",
}


@dataclass(frozen=True)
class TaskFacts:
    """A task. It is stored with a classifier."""

    kind: str
    """One of `KINDS`."""
    targets: tuple[str, ...]
    grades: tuple[str, ...] = ()
    """Of `ordinal`, from the lowest to the highest."""
    mean: float = 0.0
    """Of `regression`: mean of the numbers in train. The network predicts (number - mean) / std."""
    std: float = 1.0

    @property
    def outputs(self) -> int:
        """Outputs of the network."""
        return len(self.grades) - 1 if self.kind == ORDINAL else len(self.targets)

    @property
    def predicted_names(self) -> tuple[str, ...]:
        """What each column of the predictions (N, P) is: a label, the number, or a grade."""
        return self.grades if self.kind == ORDINAL else self.targets

    def to_json(self) -> dict[str, Any]:
        """For classifier.json and metrics.json."""
        return {**asdict(self), "targets": list(self.targets), "grades": list(self.grades)}


def facts_from_json(tree: Mapping[str, Any]) -> TaskFacts:
    """The task of classifier.json or metrics.json. KeyError, TypeError or ValueError where it is damaged."""
    if tree["kind"] not in KINDS:
        raise ValueError(f"{tree['kind']!r} is not a kind of task")
    targets, grades = (tuple(map(str, tree[name])) for name in ("targets", "grades"))
    return TaskFacts(tree["kind"], targets, grades, float(tree["mean"]), float(tree["std"]))


def facts_of(data: LabelledSet) -> TaskFacts:
    """The task of a labelled set; mean and standard deviation are those of its train part."""
    targets, train_NT = data.targets, data.parts["train"].targets_NT
    assert targets is not None
    assert train_NT is not None
    mean, std = 0.0, 1.0
    if targets.kind == REGRESSION:
        mean, std = float(np.mean(train_NT)), float(np.std(train_NT))
    return TaskFacts(targets.kind, targets.names, targets.grades, mean, std)
