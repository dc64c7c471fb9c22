"""The mean of logits, and the image that decided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.units.slice_pooling import (
    SliceScores,
    deciding_images,
    mean_of_logits,
    mean_slices,
    pool_parts,
)
from retfound_dist.listing.unit_names import NamedImage, index_units
from tests.evaluate.volumes import eye_volumes

INDEX = index_units([NamedImage(str(i), "p" if i < 3 else "q") for i in range(4)], "patient")


def test_the_pooled_probability_is_the_softmax_of_the_mean_logits() -> None:
    logits_NC = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled_UC = mean_of_logits(logits_NC.softmax(1).numpy(), INDEX)
    expected = torch.stack([logits_NC[:3].mean(0), logits_NC[3]]).softmax(1).numpy()
    assert pooled_UC == pytest.approx(expected, abs=1e-7)
    assert pooled_UC.sum(1) == pytest.approx([1, 1])


def test_probabilities_of_images_are_not_touched() -> None:
    probabilities = np.array([[0.3, 0.7]])
    assert mean_of_logits(probabilities, index_units([NamedImage("a")], "image")) is probabilities


def test_a_probability_of_0_does_not_decide_alone() -> None:
    pooled_UC = mean_of_logits(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), INDEX)
    assert np.isfinite(pooled_UC).all()
    assert pooled_UC[0, 0] > 0.99


def test_the_deciding_image_is_the_surest_of_the_predicted_class_or_has_the_most_attention() -> None:
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    pooled = mean_of_logits(probabilities, INDEX)
    assert deciding_images(SliceScores(probabilities), pooled, INDEX).tolist() == [1, 3]
    weights = np.array([0.2, 0.1, 0.7, 1.0])
    assert deciding_images(SliceScores(probabilities, weights), pooled, INDEX).tolist() == [2, 3]


def test_the_mean_over_seeds_keeps_attention_where_there_is_any() -> None:
    one, other = np.full((2, 2), 0.5), np.array([[0.0, 1.0], [1.0, 0.0]])
    mean = mean_slices([SliceScores(one, np.array([0.0, 1.0])), SliceScores(other, np.array([1.0, 0.0]))])
    assert mean is not None
    assert mean.probabilities_NC.tolist() == [[0.25, 0.75], [0.75, 0.25]]
    assert mean.weights_N is not None
    assert mean.weights_N.tolist() == [0.5, 0.5]
    assert mean_slices([]) is None


def test_parts_are_pooled_one_after_the_other(tmp_path: Path) -> None:
    data = load_labelled_set(EvalData(path=str(eye_volumes(tmp_path / "set")), unit="eye"), 28)
    images = sum(len(data.parts[name]) for name in ("train", "val"))
    rows = np.random.default_rng(0).dirichlet([1, 1], images)
    pooled = pool_parts(rows, data, ("train", "val"))
    train = data.parts["train"]
    assert len(pooled) * 3 == images
    assert np.array_equal(pooled[: len(train) // 3], mean_of_logits(rows[: len(train)], train.index("eye")))
