"""One objective for each kind of task; that of classes is the loss and the scores of earlier versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.data.set_targets import SetTargets
from retfound_dist.evaluate.finetune.objectives import ClassObjective, objective_of, output_count
from retfound_dist.evaluate.finetune.soft_targets import class_weights, training_loss
from retfound_dist.evaluate.scores import metrics
from retfound_dist.evaluate.tasks.task_objective import TaskObjective

PART = SplitPart(tuple("abcd"), np.array([0, 1, 2, 2]), (None,) * 4, ())
SET = LabelledSet(
    "set", ("A", "B", "C"), dict.fromkeys(("train", "val", "test"), PART), "image", (), (), (), "0"
)


def test_classes_have_their_soft_targets_weights_and_scores() -> None:
    recipe = Finetune(label_smoothing=0.1, class_weights="balanced")
    objective = objective_of(SET, recipe, 0)
    assert isinstance(objective, ClassObjective)
    assert objective.outputs == output_count(SET) == 3
    assert list(objective.training_targets(PART)) == [0, 1, 2, 2]
    _, targets = objective.prepare(torch.zeros(4, 3, 2, 2), torch.tensor([0, 1, 2, 2]), 0, 0)
    assert targets[0].tolist() == pytest.approx([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    weights = class_weights(PART.labels, 3, recipe)
    assert objective.loss(outputs, targets) == training_loss(outputs, targets, weights)
    p_NC = objective.predictions(outputs).double().numpy()
    row = objective.validation(PART, p_NC)
    assert row["val_loss"] == metrics.mean_log_loss(PART.labels, p_NC)
    assert row["val_auroc"] == metrics.ranking(PART.labels, p_NC)[0].mean()
    assert "val_score" not in row


def test_the_number_is_standardised_by_train_alone() -> None:
    targets = SetTargets("regression", ("age",), (), {}, {}, {})
    ages = [[50.0], [60.0], [70.0], [80.0]]
    parts = {
        "train": replace(PART, targets_NT=np.array(ages)),
        "val": replace(PART, targets_NT=np.array(ages) + 500),
        "test": replace(PART, targets_NT=np.array(ages) - 500),
    }
    data = replace(SET, parts=parts, targets=targets)
    objective = objective_of(data, Finetune(), 0)
    assert isinstance(objective, TaskObjective)
    assert output_count(data) == 1
    assert objective.facts.mean == 65.0
    assert objective.facts.std == pytest.approx(np.std([50, 60, 70, 80]))
