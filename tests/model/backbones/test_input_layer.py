"""Images are normalised by the first layer to the last bit as the evaluation does it."""

from __future__ import annotations

import pytest
import torch

from retfound_dist.errors import DataError
from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.backbones.input_layer import InputLayer

PREPARATION = Preparation((0.21091926, 0.3, 0.4), (0.17598894, 0.2, 0.3))


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_normalised_bit_by_bit_as_in_the_evaluation(channels: int) -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, channels, -1, -1)
    layer = InputLayer(PREPARATION, 16)
    assert torch.equal(layer(images), PREPARATION.normalise(images))
    torch.testing.assert_close(layer(images.float() / 255), PREPARATION.normalise(images))


def test_it_adds_nothing_to_a_state_dict_and_follows_its_network_to_another_type() -> None:
    layer = InputLayer(PREPARATION, 16)
    assert layer.state_dict() == {}
    assert layer.to(torch.float64)(torch.zeros(1, 1, 16, 16)).dtype == torch.float64


def test_floats_on_the_edges_are_taken_and_those_beyond_are_not() -> None:
    layer = InputLayer(PREPARATION, 2)
    layer.check(torch.tensor([0.0, 1.0, 0.5, 0.5]).reshape(1, 1, 2, 2))
    layer.check(torch.zeros(0, 1, 2, 2))
    for wrong in (-0.001, 1.001, float("nan")):
        with pytest.raises(DataError, match="give floats from 0 to 1"):
            layer.check(torch.full((1, 1, 2, 2), wrong))
