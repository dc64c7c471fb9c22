"""The losses of tasks: unknown answers count neither in the loss nor in its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.evaluate.tasks.task_losses import (
    multilabel_loss,
    ordinal_loss,
    regression_loss,
    task_loss,
)
from retfound_dist.evaluate.tasks.task_outputs import grade_probabilities


def test_unknown_labels_count_neither_in_the_loss_nor_in_its_gradient() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([[1, 0, math.nan], [0, math.nan, 1], [math.nan, math.nan, 0], [1, 1, 0]])
    known = targets.isfinite()
    loss = multilabel_loss(logits, targets)
    assert loss.item() == pytest.approx(cross_entropy(logits[known], targets[known]).item())
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).all()


def test_a_batch_without_a_known_label_has_no_loss() -> None:
    logits = torch.randn(2, 2).requires_grad_()
    loss = multilabel_loss(logits, torch.full((2, 2), math.nan))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_the_number_is_standardised_by_train_and_far_errors_count_linearly() -> None:
    facts = TaskFacts("regression", ("age",), mean=60.0, std=10.0)
    outputs = torch.tensor([[0.5], [-1.0]])
    assert task_loss(facts, outputs, torch.tensor([[65.0], [50.0]])).item() == 0
    far = [regression_loss(torch.zeros(1), torch.tensor([x])).item() for x in (10.0, 11.0)]
    assert far[1] - far[0] == pytest.approx(1.0)


def test_the_ordinal_loss_is_the_mean_over_the_steps_that_an_image_reaches() -> None:
    logits = torch.tensor([[0.3, -0.2], [1.5, 0.4], [-0.7, 2.0]])
    grades = torch.tensor([0.0, 1.0, 2.0])
    terms = [
        cross_entropy(logits[i, k], torch.tensor(float(grades[i] > k)))
        for i in range(3)
        for k in range(2)
        if grades[i] >= k
    ]
    assert len(terms) == 5
    assert ordinal_loss(logits, grades).item() == pytest.approx((sum(terms) / 5).item())  # type: ignore[union-attr]


def test_the_ordinal_loss_learns_the_shares_of_the_grades() -> None:
    """Without any picture the best probabilities are the shares in train."""
    grades = torch.tensor([0.0] * 5 + [1.0] * 3 + [2.0] * 2)
    logits = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ordinal_loss(logits.expand(10, 2), grades)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert grade_probabilities(logits)[0].tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)
