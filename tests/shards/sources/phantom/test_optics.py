"""Optics of the phantom: speckle of the stated strength, a blur that keeps light, a display that saturates."""

from __future__ import annotations

import numpy as np
import pytest

from shards.sources.phantom.eye import keyed_rng
from shards.sources.phantom.optics import blur, draw_scanner, expose, speckle

SEED = 5


@pytest.mark.parametrize("looks", [2.5, 8.0])
def test_speckle_has_mean_one_and_the_variance_of_averaged_frames(looks: float) -> None:
    noise_HW = speckle(keyed_rng(SEED, 9), (400, 400), looks)
    assert noise_HW.mean() == pytest.approx(1.0, abs=0.01)
    assert noise_HW.var() == pytest.approx(1 / looks, rel=0.03)


def test_the_blur_keeps_the_light_and_grows_with_the_picture() -> None:
    scanner = draw_scanner(SEED, 0)
    spreads = []
    for size in (256, 512):
        point_HW = np.zeros((size, size), np.float32)
        point_HW[size // 2, size // 2] = 1.0
        shown_HW = blur(point_HW, scanner)
        assert shown_HW.sum() == pytest.approx(1.0, abs=1e-4)
        spreads.append(float(shown_HW.max()))
    assert spreads[1] < spreads[0]


def test_one_patient_has_one_scanner_for_both_eyes_and_another_patient_another() -> None:
    assert draw_scanner(SEED, 3) == draw_scanner(SEED, 3)
    assert draw_scanner(SEED, 3) != draw_scanner(SEED, 4)


def test_brighter_tissue_is_shown_brighter_and_nothing_at_all_as_the_detectors_noise() -> None:
    scanner = draw_scanner(SEED, 1)
    means = [
        float(expose(np.full((128, 128), grey, np.float32), scanner, keyed_rng(SEED, 9)).mean())
        for grey in (0.0, 60.0, 120.0, 180.0)
    ]
    assert means == sorted(means)
    assert means[3] > means[0] + 60
    empty = expose(np.zeros((128, 128), np.float32), scanner, keyed_rng(SEED, 9))
    assert (empty.dtype, empty.shape) == (np.uint8, (128, 128))
    assert empty.std() > 1
