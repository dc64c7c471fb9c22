"""What a fine-tuning learns: the targets, the loss, the predictions, and the scores that choose the epoch.

The training loop knows no classes: it asks an objective. Shapes: B batch, N images, S side, C classes,
O outputs of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.finetune.soft_targets import Mixer, class_weights, training_loss
from retfound_dist.evaluate.scores import metrics
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.tasks.task_facts import facts_of
from retfound_dist.evaluate.tasks.task_objective import TaskObjective

NO_VALIDATION = {"val_loss": None, "val_auroc": None, "val": None}
"""`Objective.validation` without a val part."""


class Objective(Protocol):
    """What a fine-tuning learns."""

    outputs: int
    """Outputs of the network."""

    def training_targets(self, train: SplitPart) -> Sequence[Any]:
        """The target of each train image, as the loader collates it."""

    def prepare(self, images_B3SS: Tensor, targets: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Images and targets of one step, on the device of the model; both may be mixed."""

    def loss(self, outputs_BO: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch, from prepared targets."""

    def predictions(self, outputs_BO: Tensor) -> Tensor:
        """What is stored and scored, from outputs in fp32."""

    def validation(self, val: SplitPart, predictions: Floats) -> dict[str, Any]:
        """`val_loss`, `val_auroc` and `val` of a row of the history, and `val_score` if that chooses."""


class ClassObjective:
    """One class of several: cross entropy with soft targets, and the macro AUROC on val."""

    def __init__(self, data: LabelledSet, recipe: Finetune, seed: int) -> None:
        self.classes = data.classes
        self.outputs = len(data.classes)
        self.weights_C = class_weights(data.parts["train"].labels, self.outputs, recipe)
        self.mixer = Mixer(recipe, self.outputs, seed)

    def training_targets(self, train: SplitPart) -> Sequence[int]:
        """Class indices."""
        labels: list[int] = train.labels.tolist()
        return labels

    def prepare(self, images_B3SS: Tensor, targets_B: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Mixed images and soft targets (B, C)."""
        return self.mixer(images_B3SS, targets_B, epoch, step)

    def loss(self, outputs_BO: Tensor, targets_BC: Tensor) -> Tensor:
        """`soft_targets.training_loss`."""
        if self.weights_C is not None:
            # Kept there: a copy in each step would wait for the GPU.
            self.weights_C = self.weights_C.to(outputs_BO.device)
        return training_loss(outputs_BO, targets_BC, self.weights_C)

    def predictions(self, outputs_BO: Tensor) -> Tensor:
        """Probabilities (B, C)."""
        return class_probabilities(outputs_BO)

    def validation(self, val: SplitPart, probabilities_NC: Floats) -> dict[str, Any]:
        """Val loss, AUROC over the classes in val, and all macro scores."""
        auroc_C, _ = metrics.ranking(val.labels, probabilities_NC)
        defined_auroc = auroc_C[np.isfinite(auroc_C)]
        return {
            "val_loss": metrics.mean_log_loss(val.labels, probabilities_NC),
            "val_auroc": float(defined_auroc.mean()) if len(defined_auroc) else None,
            "val": metrics.evaluate(val.labels, probabilities_NC, self.classes)["macro"],
        }


def class_probabilities(outputs_BO: Tensor) -> Tensor:
    """The softmax of the outputs."""
    return outputs_BO.softmax(1)


def objective_of(data: LabelledSet, recipe: Finetune, seed: int) -> Objective:
    """The objective of a labelled set's task."""
    return TaskObjective(facts_of(data)) if data.targets else ClassObjective(data, recipe, seed)


def output_count(data: LabelledSet) -> int:
    """Outputs of the network that learns the labelled set's task."""
    return facts_of(data).outputs if data.targets else len(data.classes)
