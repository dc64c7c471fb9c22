"""Tokens of images by number: those of the encoder, kept or computed again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import EvalModel
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.probe.frozen_features import compute_features, frozen_encoder
from retfound_dist.evaluate.probe.patch_tokens import PatchTokens

IMAGES = [np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8) for i in range(5)]


@pytest.fixture(scope="module")
def start() -> StartingWeights:
    return open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))


def test_their_mean_is_the_feature_of_the_image(start: StartingWeights) -> None:
    tokens = PatchTokens(start, IMAGES, np.array([0, 3]))
    features = compute_features(frozen_encoder(start), start.backbone, IMAGES)
    for index in range(5):
        read = tokens(np.array([index]))
        assert read.shape == (1, 4, 192)
        np.testing.assert_allclose(read[0].float().mean(0), features[index], atol=2e-3)


def test_kept_and_computed_tokens_are_the_same_in_any_order(start: StartingWeights) -> None:
    kept, computed = (PatchTokens(start, IMAGES, np.array(n, np.int64)) for n in ([0, 1, 2, 3, 4], []))
    order = np.array([4, 0, 2])
    torch.testing.assert_close(kept(order), computed(order), atol=2e-3, rtol=2e-3)
    assert kept(order).dtype == torch.float16
    assert not torch.equal(kept(order), kept(order[::-1].copy()))


def test_the_encoder_runs_once_for_kept_images_and_again_for_the_others(start: StartingWeights) -> None:
    done: list[tuple[int, int]] = []
    tokens = PatchTokens(start, IMAGES, np.array([1, 2]), lambda now, total: done.append((now, total)))
    assert done == [(2, 2)]
    tokens._model = None  # type: ignore[assignment]
    tokens(np.array([2, 1, 2]))
    with pytest.raises(AttributeError):
        tokens(np.array([2, 3]))


def test_a_convolutional_network_has_tokens_too() -> None:
    start = open_starting_weights("none", EvalModel(name="timm:convnext_atto", image_size=64))
    images = [np.kron(image, np.ones((2, 2), np.uint8))[:64, :64] for image in IMAGES]
    assert PatchTokens(start, images, np.arange(2))(np.array([1])).shape[2] == 320
