"""The healthy eye: its pit, its layers, and randomness that depends on its key alone."""

from __future__ import annotations

import numpy as np

from shards.sources.phantom.eye import (
    GREYS,
    LAYERS,
    STREAM_EYE,
    STREAM_LESION,
    Waves,
    columns,
    draw_eye,
    greys,
    keyed_rng,
    optic_disc,
    thicknesses,
)
from shards.sources.phantom.phantom import list_scans
from tests.shards.sources.phantom.measurements import SEED, retina_at_fovea


def test_a_normal_eye_has_its_pit_in_the_central_slices() -> None:
    scans = list_scans(patients=60, slices_per_volume=9, seed=SEED)
    normal = [scan for scan in scans if scan.label == "NORMAL" and scan.slice in (0, 4)]
    height = np.array([retina_at_fovea(scan) for scan in normal]).reshape(-1, 2)
    assert (height[:, 1] < 280.0).all()
    assert np.mean(height[:, 0] - height[:, 1]) > 15.0


def test_a_generator_depends_on_its_key_and_on_nothing_that_was_drawn_before() -> None:
    first = keyed_rng(SEED, STREAM_EYE, 3, 1).random(4)
    keyed_rng(SEED, STREAM_EYE, 3, 0).random(100)
    assert (keyed_rng(SEED, STREAM_EYE, 3, 1).random(4) == first).all()
    for other in ((SEED + 1, STREAM_EYE, 3, 1), (SEED, STREAM_LESION, 3, 1), (SEED, STREAM_EYE, 1, 3)):
        assert (keyed_rng(*other).random(4) != first).all()


def test_every_layer_has_a_grey_and_no_thickness_below_zero() -> None:
    eye = draw_eye(SEED, 0, 0, lift=0.0)
    x_W = columns(eye, 64)
    thick_KW = thicknesses(eye, x_W, 0.2)
    assert len(GREYS) == len(LAYERS)
    assert thick_KW.shape == greys(eye, x_W, 0.2).shape == (len(LAYERS), 64)
    assert (thick_KW >= 0).all()
    for empty in ("FLUID", "SUBRPE"):
        assert (thick_KW[LAYERS.index(empty)] == 0).all(), "a healthy eye has none"


def test_the_optic_disc_lies_on_the_nasal_side_of_either_eye() -> None:
    for index in (0, 1):
        eye = draw_eye(SEED, 2, index, lift=0.0)
        x_W = np.linspace(-8, 8, 401, dtype=np.float32)
        part_W, _ = optic_disc(eye, x_W, 0.0)
        assert eye.nasal * float((part_W * x_W).sum()) > 0
        assert part_W[np.abs(x_W) < 2].max() < 0.01, "never on the fovea"


def test_the_retina_leaves_room_above_itself_for_what_a_lesion_lifts() -> None:
    for patient in range(20):
        assert draw_eye(SEED, patient, 0, lift=300.0).base >= 690.0


def test_waves_have_the_spread_they_were_drawn_with() -> None:
    x_W = np.linspace(-200, 200, 20_001, dtype=np.float32)
    heights_W = Waves.draw(keyed_rng(SEED, STREAM_EYE), length=0.5, scale=6.0, n=40)(x_W, 0.0)
    assert abs(float(heights_W.std()) - 6.0) < 0.6
    assert abs(float(heights_W.mean())) < 0.6
