from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from retfound_dist.errors import ConfigError
from retfound_dist.model.backbones.plain_vit import PlainVit, nearest_multiple
from retfound_dist.model.mae import encoder_shape
from retfound_dist.model.positions import resample_positions
from retfound_dist.model.weights.weight_files import read_weights
from tests.evaluate.inputs import checkpoint

SHAPE = encoder_shape("vit_demo_patch14")


def test_the_size_that_is_asked_for_is_obeyed_and_positions_are_resampled(tmp_path: Path) -> None:
    weights = read_weights(checkpoint(tmp_path, 3))
    own = PlainVit(lambda: weights, weights.shape, weights.image_size)
    model: Any = own.at_size(56).build()
    assert model(torch.zeros(1, 3, 56, 56)).shape == (1, 192)
    torch.testing.assert_close(
        model.pos_embed, resample_positions(weights.state["pos_embed"], (2, 2), (4, 4))
    )
    assert (own.facts.tokens, own.at_size(56).facts.tokens) == (5, 17)


def test_frozen_features_are_the_mean_of_the_patches() -> None:
    backbone = PlainVit(None, SHAPE, 28)
    model: Any = backbone.build(seed=3).eval()
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(backbone.pooled(model, x), model.forward_features(x)[:, 1:].mean(1))
    assert backbone.facts.width == 192
    assert backbone.facts.parameters == sum(p.numel() for p in model.parameters())


def test_a_size_that_is_no_multiple_of_the_patch_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"image_size=100 is not a multiple of the patch of 14 pixels: choose 98"
    ):
        PlainVit(None, SHAPE, 100)
    assert [nearest_multiple(size, 16) for size in (1, 16, 25, 224)] == [16, 16, 32, 224]


def test_it_is_called_by_its_name_or_its_shape() -> None:
    assert PlainVit(None, SHAPE, 28).family == "vit_demo_patch14"
    other = type(SHAPE)(width=64, depth=2, heads=1, patch=14)
    assert PlainVit(None, other, 28).family == "ViT of width 64, depth 2, patch 14"
