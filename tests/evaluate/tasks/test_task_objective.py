"""What fine-tuning learns for tasks: targets in the loader's form, and a val score where higher is better."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.finetune.layer_decay import choose_epoch
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.evaluate.tasks.task_losses import task_loss
from retfound_dist.evaluate.tasks.task_objective import TaskObjective, validation_loss

PART = SplitPart(("a", "b", "c", "d"), np.zeros(4, np.int64), (None,) * 4, ())
NUMBER = TaskFacts("regression", ("age",), mean=60.0, std=10.0)
AGES = replace(PART, targets_NT=np.array([[50.0], [60.0], [70.0], [80.0]]))
LABELS = replace(PART, targets_NT=np.array([[0, 1], [1, 1], [0, math.nan], [1, math.nan]]))


def test_targets_are_rows_that_the_loader_stacks() -> None:
    targets = TaskObjective(TaskFacts("multilabel", ("x", "y"))).training_targets(LABELS)
    batch = torch.utils.data.default_collate(targets)
    assert batch.shape == (4, 2)
    assert batch.dtype == torch.float32
    assert batch[2].isnan().tolist() == [False, True]


def test_the_epoch_with_the_smallest_error_is_chosen() -> None:
    objective = TaskObjective(NUMBER)
    history = [
        objective.validation(AGES, np.array(predicted)[:, None])
        for predicted in ([50.0, 61, 70, 90], [50.0, 61, 70, 82], [55.0, 60, 70, 80])
    ]
    assert [row["val_score"] for row in history] == pytest.approx([-11 / 4, -3 / 4, -5 / 4])
    assert choose_epoch(history) == 1
    assert history[1]["val"]["mae"] == pytest.approx(0.75)


def test_a_label_with_one_known_answer_in_val_does_not_stop_the_choice() -> None:
    row = TaskObjective(TaskFacts("multilabel", ("x", "y"))).validation(
        LABELS, np.array([[0.1, 0.9], [0.8, 0.9], [0.9, 0.1], [0.95, 0.2]])
    )
    assert row["val"]["auroc"] is None
    assert row["val_score"] == pytest.approx(3 / 4)


def test_the_grades_choose_by_quadratic_kappa() -> None:
    facts = TaskFacts("ordinal", ("stage",), grades=("0", "1", "2"))
    part = replace(PART, targets_NT=np.array([[0.0], [1.0], [2.0], [2.0]]))
    row = TaskObjective(facts).validation(part, np.eye(3)[[0, 1, 2, 2]])
    assert row["val_score"] == 1.0
    assert row["val_loss"] == 0.0


@pytest.mark.parametrize(
    ("facts", "outputs", "targets"),
    [
        (TaskFacts("multilabel", ("x", "y")), [[0.5, -1.0], [2.0, 0.0]], [[1, math.nan], [0, 1]]),
        (NUMBER, [[0.5], [-1.0]], [[61.0], [80.0]]),
    ],
)
def test_the_val_loss_is_the_training_loss_of_the_same_outputs(
    facts: TaskFacts, outputs: list[list[float]], targets: list[list[float]]
) -> None:
    predictions = TaskObjective(facts).predictions(torch.tensor(outputs, dtype=torch.float64)).numpy()
    expected = task_loss(facts, torch.tensor(outputs), torch.tensor(targets))
    assert validation_loss(facts, np.array(targets), predictions) == pytest.approx(expected.item(), rel=1e-5)
