"""An encoder takes images as they are, and refuses what would give wrong features without an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import retfound_dist
from retfound_dist.errors import ConfigError, DataError, WeightsError
from tests.evaluate.inputs import checkpoint


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> retfound_dist.Encoder:
    root = tmp_path_factory.mktemp("encoder")
    checkpoint(root / "run", 7)
    return retfound_dist.load_encoder(str(root / "run"))


def images(count: int = 4, side: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8)


def test_bytes_floats_and_colour_of_the_same_images_give_the_same_features(
    encoder: retfound_dist.Encoder,
) -> None:
    batch = images()
    features = encoder(batch)
    assert features.shape == (4, encoder.width)
    torch.testing.assert_close(encoder(batch.float() / 255), features, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(batch.expand(-1, 3, -1, -1)), features)
    assert not features.requires_grad
    assert encoder.remark == ""


def test_features_are_the_mean_of_the_patches(encoder: retfound_dist.Encoder) -> None:
    batch = images()
    patches = encoder.patch_features(batch)
    assert patches.shape == (4, 4, encoder.width)
    torch.testing.assert_close(patches.mean(1), encoder(batch))


def test_another_size_resamples_the_positions_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 7)
    larger = retfound_dist.load_encoder(url, image_size=56)
    assert larger.image_size == 56
    assert larger.patch_features(images(side=56)).shape == (4, 16, larger.width)
    with pytest.raises(ConfigError, match="not a multiple of the patch of 14 pixels"):
        retfound_dist.load_encoder(url, image_size=30)
    with pytest.raises(WeightsError, match="no_such_file"):
        retfound_dist.load_encoder(str(tmp_path / "no_such_file.pth"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (images(side=56), r"shape \(4, 1, 56, 56\).*takes \(B, 1, 28, 28\)"),
        (images()[0], r"shape \(1, 28, 28\)"),
        (images().float(), "floats from .* to .*: give floats from 0 to 1"),
        ((images().float() / 255 - 0.5) / 0.2, "not normalised"),
        (images().long(), "torch.int64"),
    ],
)
def test_images_that_would_give_wrong_features_are_refused(
    encoder: retfound_dist.Encoder, wrong: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encoder(wrong)
    with pytest.raises(DataError, match=message):
        encoder.patch_features(wrong)
