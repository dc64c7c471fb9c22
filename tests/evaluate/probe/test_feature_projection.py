from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.probe.feature_projection import project


def test_two_independent_directions_come_back_with_their_shares() -> None:
    """Six features follow one hidden number, two another: after scaling 6 and 2 of 8 parts of the variance."""
    first, second = np.linalg.qr(np.random.default_rng(3).normal(size=(120, 2)))[0].T
    first, second = first - first.mean(), second - second.mean()
    second -= first * (first @ second) / (first @ first)
    features = np.column_stack([first] * 6 + [-second] * 2).astype(np.float32)
    projected = project(features)
    assert projected is not None
    assert projected["explained"] == pytest.approx([0.75, 0.25], abs=1e-3)
    x, y = np.array(projected["points"]).T
    assert abs(np.corrcoef(x, first)[0, 1]) == pytest.approx(1, abs=1e-4)
    assert abs(np.corrcoef(y, second)[0, 1]) == pytest.approx(1, abs=1e-4)


def test_units_and_offsets_of_features_change_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    rescaled = features * np.array([1, 2, 4, 1024, 0.25], np.float32)
    one, other = project(features), project(rescaled)
    assert one is not None
    assert other is not None
    assert one["explained"] == pytest.approx(other["explained"], abs=1e-3)
    assert np.abs(np.array(one["points"])) == pytest.approx(np.abs(np.array(other["points"])), abs=1e-2)


def test_there_is_nothing_to_show_of_two_images_or_of_equal_ones() -> None:
    draw = np.random.default_rng(0)
    assert project(draw.normal(size=(2, 8)).astype(np.float32)) is None
    assert project(np.tile(draw.normal(size=(1, 8)).astype(np.float32), (6, 1))) is None
    three = project(draw.normal(size=(3, 8)).astype(np.float32))
    assert three is not None
    assert np.shape(three["points"]) == (3, 2)
    assert sum(three["explained"]) == pytest.approx(1, abs=1e-3), "three points lie in one plane"
