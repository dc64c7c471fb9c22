"""Predictions from outputs: probabilities of grades are a distribution, numbers are in the unit of the list."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.evaluate.tasks.task_outputs import (
    expected_grades,
    grade_probabilities,
    predicted_grades,
    task_predictions,
)


def test_probabilities_of_grades_sum_to_one_and_are_never_negative() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)) * 5
    p_BK = grade_probabilities(logits)
    assert p_BK.shape == (50, 5)
    assert (p_BK >= 0).all()
    assert p_BK.sum(1).tolist() == pytest.approx([1.0] * 50)
    # P(grade > 1) is the product of both conditional probabilities.
    assert p_BK[:, 2:].sum(1).tolist() == pytest.approx(logits[:, :2].sigmoid().prod(1).tolist(), abs=1e-6)


def test_the_predicted_grade_is_the_median_and_the_expected_one_the_mean() -> None:
    p_NK = np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7], [0.6, 0.2, 0.2]])
    # The most probable grade of the first image is 0, but half of the probability lies above it.
    assert predicted_grades(p_NK).tolist() == [1, 2, 0]
    assert expected_grades(p_NK).tolist() == pytest.approx([0.9, 1.6, 0.6])


def test_labels_are_probabilities_and_numbers_are_in_the_unit_of_the_list() -> None:
    outputs = torch.tensor([[0.0], [1.0]])
    labels = TaskFacts("multilabel", ("cyst",))
    assert task_predictions(labels, outputs).flatten().tolist() == pytest.approx([0.5, 0.7310586])
    number = TaskFacts("regression", ("age",), mean=60.0, std=10.0)
    assert task_predictions(number, outputs).flatten().tolist() == [60.0, 70.0]
