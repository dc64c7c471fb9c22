from __future__ import annotations

from types import SimpleNamespace

import torch

from retfound_dist.model.backbones.backbone import (
    InputFacts,
    Preparation,
    _channel_values,
    pooled_features,
    preparation_of,
    spatial_positions,
)
from retfound_dist.model.mae import IMAGENET_MEAN, IMAGENET_STD


def test_positions_of_tokens_and_maps_have_one_shape_and_order() -> None:
    grid_BHWD = torch.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4).float()
    rows_BLD = grid_BHWD.reshape(2, 6, 4)
    channels_first = SimpleNamespace()
    channels_last = SimpleNamespace(output_fmt="NHWC")
    tokens = SimpleNamespace(num_prefix_tokens=5)
    prefix = torch.full((2, 5, 4), -1.0)
    assert torch.equal(spatial_positions(channels_first, grid_BHWD.permute(0, 3, 1, 2)), rows_BLD)
    assert torch.equal(spatial_positions(channels_last, grid_BHWD), rows_BLD)
    assert torch.equal(spatial_positions(tokens, torch.cat([prefix, rows_BLD], 1)), rows_BLD)


def test_a_norm_behind_the_mean_is_part_of_the_features() -> None:
    tokens = torch.randn(2, 5, 8)
    without = SimpleNamespace(num_prefix_tokens=1)
    behind = SimpleNamespace(num_prefix_tokens=1, fc_norm=lambda x: 2 * x)
    mean = tokens[:, 1:].mean(1)
    torch.testing.assert_close(pooled_features(without, tokens), mean)
    torch.testing.assert_close(pooled_features(behind, tokens), 2 * mean)


def test_a_mean_in_bf16_keeps_the_digits_of_fp32() -> None:
    tokens = (1 + torch.arange(1000) / 1e4)[None, :, None].to(torch.bfloat16)
    found = pooled_features(SimpleNamespace(num_prefix_tokens=0), tokens)
    assert found.dtype == torch.float32
    assert abs(float(found) - float(tokens.double().mean())) < 1e-5


def test_images_are_normalised_by_their_encoder_s_own_numbers() -> None:
    x = Preparation((0.5, 0.25, 0.0), (0.5, 1.0, 2.0)).normalise(
        torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    )
    assert x.shape == (1, 3, 2, 2)
    assert x[0, :, 0, 0].tolist() == [1.0, 0.75, 0.5]


def test_the_first_source_that_says_something_decides() -> None:
    assert preparation_of() == Preparation(IMAGENET_MEAN, IMAGENET_STD, "bicubic")
    own = InputFacts(mean=(0.1, 0.1, 0.1))
    timm = InputFacts(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), interpolation="bilinear")
    assert preparation_of(own, timm) == Preparation((0.1, 0.1, 0.1), (0.2, 0.2, 0.2), "bilinear")
    assert preparation_of(InputFacts(interpolation="random")).interpolation == "bicubic"


def test_the_numbers_of_a_preparation_reach_a_device_once_also_from_inference() -> None:
    """A copy to a GPU in each step would wait for the GPU; `meta` stands for it."""
    images, preparation = torch.zeros(1, 1, 2, 2, dtype=torch.uint8, device="meta"), Preparation((0.1,) * 3)
    with torch.inference_mode():
        preparation.normalise(images)
    made = _channel_values.cache_info().misses
    scale = torch.ones(1, device="meta", requires_grad=True)
    (preparation.normalise(images) * scale).sum().backward()
    assert _channel_values.cache_info().misses == made
