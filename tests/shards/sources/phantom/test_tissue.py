"""Tissue of the phantom: layers in their order, texture that runs on between B-scans, lesions inside the retina."""

from __future__ import annotations

import numpy as np
import pytest

from shards.sources.phantom.eye import LAYERS, STREAM_VESSELS, keyed_rng
from shards.sources.phantom.lesions import INL, MYOID, Blob, LesionSection
from shards.sources.phantom.tissue import (
    PixelGrid,
    draw_vessels,
    edges,
    paint_blob,
    paint_layers,
    ramp,
    texture,
)

WIDTH, HEIGHT = 80, 300
KEY = (5, 0, 0)


def grid() -> PixelGrid:
    """A picture 4 mm wide and 600 micrometres deep."""
    x_W = np.linspace(-2, 2, WIDTH, dtype=np.float32)
    return PixelGrid(x_W, np.linspace(0, 600, HEIGHT, dtype=np.float32)[:, None], soft=4.0, y=0.0)


def layers() -> tuple[LesionSection, np.ndarray]:
    """Twelve layers of 30 micrometres over a flat Bruch's membrane at 500, each with its own grey."""
    thick_KW = np.full((len(LAYERS), WIDTH), 30.0, np.float32)
    grey_KW = np.repeat(10.0 * np.arange(1, 13, dtype=np.float32)[:, None], WIDTH, axis=1)
    return LesionSection(thick_KW, grey_KW), edges(thick_KW, np.full(WIDTH, 500.0, np.float32))


def test_an_edge_is_half_covered_where_it_lies() -> None:
    values = ramp(np.array([-10.0, 0.0, 10.0], np.float32), 4.0)
    assert values.tolist() == [0.0, 0.5, 1.0]


def test_edges_stack_upwards_from_bruchs_membrane() -> None:
    _, edge_KW = layers()
    assert edge_KW[:, 0].tolist() == [500.0 - 30.0 * left for left in range(12, -1, -1)]


def test_each_layer_shows_its_grey_between_its_edges_and_nothing_above() -> None:
    cut, edge_KW = layers()
    frame = grid()
    grey_HW = paint_layers(frame, cut, edge_KW, np.full((HEIGHT, WIDTH), 77.0, np.float32))
    at = {layer: int(np.abs(frame.z_H1[:, 0] - (edge_KW[layer, 0] + 15.0)).argmin()) for layer in (2, 5, 9)}
    assert [grey_HW[row, 40] for row in at.values()] == pytest.approx([30.0, 60.0, 100.0], abs=0.1)
    assert grey_HW[frame.z_H1[:, 0] < 120].max() == 0
    assert grey_HW[-1, 40] == pytest.approx(77.0, abs=0.1)


def test_texture_changes_smoothly_from_b_scan_to_b_scan_and_keeps_its_variance() -> None:
    here, near, far = (texture(KEY, 0, y, (60, 60)) for y in (0.50, 0.51, 1.9))
    assert np.corrcoef(here.ravel(), near.ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(here.ravel(), far.ravel())[0, 1]) < 0.1
    assert here.std() == pytest.approx(1.0, abs=0.06)
    before, after = (texture(KEY, 0, 0.48 + step, (60, 60)) for step in (-1e-6, 1e-6))
    assert np.abs(before - after).max() < 1e-3, "no jump where one grid follows another"


def test_a_cyst_stays_within_the_retina_and_a_cyst_outside_of_the_picture_changes_nothing() -> None:
    cut, edge_KW = layers()
    frame = grid()
    plain_HW = paint_layers(frame, cut, edge_KW, np.zeros((HEIGHT, WIDTH), np.float32))
    flat_HW = np.zeros_like(plain_HW)
    shown_HW = plain_HW.copy()
    paint_blob(shown_HW, frame, edge_KW, Blob(0.0, INL, 0.0, 0.5, 400.0, 200.0), flat_HW)
    rows, columns = np.nonzero(shown_HW != plain_HW)
    depth = frame.z_H1[rows, 0]
    assert depth.min() > edge_KW[0, 0]
    assert depth.max() < edge_KW[MYOID, 0] + frame.soft
    assert np.abs(frame.x_W[columns]).max() < 0.7
    shown_HW = plain_HW.copy()
    paint_blob(shown_HW, frame, edge_KW, Blob(3.0, INL, 0.0, 0.5, 40.0, 200.0), flat_HW)
    assert (shown_HW == plain_HW).all()


def test_vessels_keep_clear_of_the_avascular_zone() -> None:
    for patient in range(30):
        vessels = draw_vessels(keyed_rng(5, STREAM_VESSELS, patient))
        assert 4 <= len(vessels.crossings) <= 10
        assert all(abs(x) >= 0.5 for x, *_ in vessels.crossings)
