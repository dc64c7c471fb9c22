"""The losses of tasks other than classes, as means over the answers that are known.

Shapes: B batch, T labels, K grades.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, REGRESSION, TaskFacts


def task_loss(facts: TaskFacts, outputs: Tensor, targets_BT: Tensor) -> Tensor:
    """The loss of one batch. `outputs`: of the network, (B, `facts.outputs`). NaN targets do not count."""
    if facts.kind == MULTILABEL:
        return multilabel_loss(outputs, targets_BT)
    if facts.kind == REGRESSION:
        return regression_loss(outputs[:, 0], (targets_BT[:, 0] - facts.mean) / facts.std)
    return ordinal_loss(outputs, targets_BT[:, 0])


def multilabel_loss(logits_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Binary cross entropy of each label, the mean over all known answers of the batch; 0 without any."""
    known_BT = targets_BT.isfinite()
    # Zeros in place of NaN: a product of NaN and 0 is NaN, and its gradient too.
    terms_BT = binary_cross_entropy_with_logits(
        logits_BT.float(), targets_BT.nan_to_num(0.0), weight=known_BT.float(), reduction="sum"
    )
    return terms_BT / known_BT.sum().clamp(min=1)


def regression_loss(outputs_B: Tensor, standardised_B: Tensor) -> Tensor:
    """Smooth L1 (Huber 1964; Girshick, Fast R-CNN, ICCV 2015) on standardised numbers.

    It is quadratic within one standard deviation of train, and linear beyond, so that single wrong numbers
    do not decide.
    """
    return smooth_l1_loss(outputs_B.float(), standardised_B)


def ordinal_loss(logits_BK: Tensor, grades_B: Tensor) -> Tensor:
    """CORN (Shi, Cao and Raschka, Pattern Analysis and Applications 26, 2023), equation 6.

    Output k is the logit of P(grade > k, given grade >= k). It learns from the images with a grade of at
    least k. (B, K - 1) logits. Unlike CORAL (Cao et al. 2020), the probabilities are in order without shared
    weights, so the head is a plain linear layer.
    """
    steps_K = torch.arange(logits_BK.shape[1], device=logits_BK.device)
    counts_BK = grades_B[:, None] >= steps_K
    above_BK = grades_B[:, None] > steps_K
    terms = binary_cross_entropy_with_logits(
        logits_BK.float(), above_BK.float(), weight=counts_BK.float(), reduction="sum"
    )
    return terms / counts_BK.sum()
