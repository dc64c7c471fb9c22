"""Gated attention: it begins as the mean of logits, and does not see what fills up a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from retfound_dist.evaluate.units.attention_pool import AttentionPool, attend, pad_units
from retfound_dist.evaluate.units.slice_pooling import mean_of_logits
from retfound_dist.listing.unit_names import NamedImage, index_units

INDEX = index_units([NamedImage(str(i), f"p{i // 3}") for i in range(7)], "patient")


def features(width: int = 5) -> torch.Tensor:
    """Seven images, the last one alone in its unit."""
    return torch.randn(7, width, generator=torch.Generator().manual_seed(1))


def trained_pool() -> AttentionPool:
    """A pool whose weights are not equal."""
    torch.manual_seed(0)
    pool = AttentionPool(5, 3)
    for parameter in pool.parameters():
        nn.init.normal_(parameter)
    return pool


def test_it_begins_as_the_mean_of_the_networks_own_logits() -> None:
    torch.manual_seed(0)
    classifier, rows_ND = nn.Linear(5, 3), features() * 4 + 2
    pool = AttentionPool(5, 3)
    pool.start_from(rows_ND, classifier)
    probabilities_UC, weights_N = attend(pool, rows_ND.numpy(), INDEX)
    expected = mean_of_logits(classifier(rows_ND).softmax(1).double().detach().numpy(), INDEX)
    assert probabilities_UC == pytest.approx(expected, abs=1e-5)
    assert weights_N == pytest.approx([1 / 3] * 6 + [1])


def test_it_begins_with_a_classifier_and_features_that_lie_on_a_gpu() -> None:
    # Tensors without content, which raise where two of one operation lie on different devices.
    with FakeTensorMode():
        pool = AttentionPool(5, 3)
        pool.start_from(torch.zeros(7, 5, device="cuda"), nn.Linear(5, 3, device="cuda"))
        assert {tensor.device.type for tensor in pool.state_dict().values()} == {"cpu"}


def test_the_formula_is_that_of_the_paper() -> None:
    pool, h_KD = trained_pool(), features()[:3]
    gate = torch.tanh(h_KD @ pool.tanh_gate.weight.T + pool.tanh_gate.bias) * torch.sigmoid(
        h_KD @ pool.sigmoid_gate.weight.T + pool.sigmoid_gate.bias
    )
    a_K = torch.exp(gate @ pool.strength.weight[0])
    a_K = a_K / a_K.sum()
    logits = pool.head.weight @ (a_K @ h_KD) + pool.head.bias
    probabilities_UC, weights_N = attend(pool, features().numpy(), INDEX)
    assert weights_N[:3] == pytest.approx(a_K.detach().numpy(), abs=1e-5)
    assert probabilities_UC[0] == pytest.approx(logits.softmax(0).detach().numpy(), abs=1e-5)


def test_weights_of_a_unit_sum_to_1_and_one_slice_has_all_of_it() -> None:
    _, weights_N = attend(trained_pool(), features().numpy(), INDEX)
    assert [weights_N[images].sum() for images in INDEX.images_of_units] == pytest.approx([1, 1, 1])
    assert weights_N[6] == 1


def test_filling_up_changes_nothing() -> None:
    pool, rows_ND = trained_pool(), features()
    together, weights_BK = pool(*pad_units(rows_ND, INDEX.images_of_units))
    alone, _ = pool(*pad_units(rows_ND, [np.array([6])]))
    assert together[2].tolist() == pytest.approx(alone[0].tolist(), abs=1e-5)
    assert weights_BK[2].tolist() == [1, 0, 0]


def test_a_unit_does_not_depend_on_its_neighbours_by_a_bit() -> None:
    pool, rows = trained_pool(), features().numpy()
    first = index_units([NamedImage(str(i), "p0") for i in range(3)], "patient")
    assert np.array_equal(attend(pool, rows, INDEX)[0][0], attend(pool, rows[:3], first)[0][0])


def test_a_feature_that_never_changes_does_no_harm() -> None:
    rows_ND = features()
    rows_ND[:, 2] = 7
    pool = AttentionPool(5, 3)
    pool.start_from(rows_ND, nn.Linear(5, 3))
    assert np.isfinite(attend(pool, rows_ND.numpy(), INDEX)[0]).all()
