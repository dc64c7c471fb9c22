"""Targets and the loss on them, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.finetune.soft_targets import Mixer, class_weights, training_loss

LN2, LN4 = math.log(2), math.log(4)
HALF_QUARTERS = torch.tensor([[LN2, 0.0, 0.0], [0.0, 0.0, LN2]])
"""Logits of two images: probabilities 1/2, 1/4, 1/4 and 1/4, 1/4, 1/2."""
LABELS = torch.tensor([0, 1])


def batch(size: int = 4) -> torch.Tensor:
    """Image i is i everywhere."""
    return torch.arange(size, dtype=torch.float32)[:, None, None, None].expand(size, 3, 8, 8).clone()


def targets(recipe: Finetune, labels: torch.Tensor = LABELS, classes: int = 3) -> torch.Tensor:
    return Mixer(recipe, classes, seed=0)(batch(len(labels)), labels, 0, 0)[1]


def test_without_smoothing_the_loss_is_the_mean_of_minus_ln_p() -> None:
    loss = training_loss(HALF_QUARTERS, targets(Finetune(label_smoothing=0.0)))
    assert float(loss) == pytest.approx((LN2 + LN4) / 2)


def test_smoothing_gives_each_class_its_share_of_the_target_in_the_loss() -> None:
    target = targets(Finetune(label_smoothing=0.3))
    assert target.tolist() == [pytest.approx([0.8, 0.1, 0.1]), pytest.approx([0.1, 0.8, 0.1])]
    first = 0.8 * LN2 + 0.1 * LN4 + 0.1 * LN4
    second = 0.1 * LN4 + 0.8 * LN4 + 0.1 * LN2
    assert float(training_loss(HALF_QUARTERS, target)) == pytest.approx((first + second) / 2)


def test_balanced_weights_are_images_over_classes_times_images_of_the_class() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [2] * 4)
    weights = class_weights(labels, 3, Finetune(class_weights="balanced"))
    assert weights is not None
    assert weights.tolist() == [pytest.approx(12 / 18), pytest.approx(2.0), pytest.approx(1.0)]
    assert float(weights[labels].mean()) == pytest.approx(1.0)
    assert class_weights(labels, 3, Finetune()) is None


def test_weights_count_in_the_loss_of_every_share_of_the_target() -> None:
    weights = torch.tensor([2.0, 0.5, 1.0])
    first = 2 * 0.8 * LN2 + 0.5 * 0.1 * LN4 + 0.1 * LN4
    second = 2 * 0.1 * LN4 + 0.5 * 0.8 * LN4 + 0.1 * LN2
    loss = training_loss(HALF_QUARTERS, targets(Finetune(label_smoothing=0.3)), weights)
    assert float(loss) == pytest.approx((first + second) / 2)


def test_mixup_blends_images_and_smoothed_targets_by_the_same_share() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    images, target = Mixer(Finetune(mixup=0.8, label_smoothing=0.3), 3, 0)(batch(), labels, 0, 0)
    share = 1 - float(images[0].mean()) / 3
    assert 0.001 < share < 0.999
    assert images[:, 0, 0, 0].tolist() == pytest.approx(
        [3 - 3 * share, 2 - share, 1 + share, 3 * share], abs=1e-5
    )
    assert target[0].tolist() == pytest.approx([0.1 + 0.7 * share, 0.1, 0.1 + 0.7 * (1 - share)], abs=1e-6)
    assert target[1].tolist() == pytest.approx([0.1, 0.8, 0.1])


def test_cutmix_s_target_is_the_area_that_was_cut() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    images, target = Mixer(Finetune(cutmix=1.0, label_smoothing=0.0), 3, 0)(batch(), labels, 0, 0)
    assert set(images[0].unique().tolist()) == {0.0, 3.0}
    cut = float((images[0, 0] == 3).float().mean())
    assert target[0].tolist() == pytest.approx([1 - cut, 0, cut])


def test_an_odd_batch_s_last_image_is_smoothed_and_not_mixed() -> None:
    labels = torch.tensor([0, 1, 2])
    images, target = Mixer(Finetune(mixup=0.8, label_smoothing=0.3), 3, 0)(batch(3), labels, 0, 0)
    assert (images[2] == 2).all()
    assert target[2].tolist() == pytest.approx([0.1, 0.1, 0.8])
    assert target[0].tolist() != pytest.approx([0.8, 0.1, 0.1])


def test_draws_follow_from_seed_epoch_and_step_alone() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    recipe = Finetune(mixup=0.8, cutmix=1.0)

    def drawn(seed: int, epoch: int, step: int) -> torch.Tensor:
        return Mixer(recipe, 3, seed)(batch(), labels, epoch, step)[0]

    first = drawn(0, 3, 5)
    np.random.seed(77)
    assert torch.equal(drawn(0, 3, 5), first)
    for other in ((1, 3, 5), (0, 4, 5), (0, 3, 6)):
        assert not torch.equal(drawn(*other), first)
