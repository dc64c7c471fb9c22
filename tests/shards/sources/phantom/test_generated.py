"""The phantom as a source: scans with all their fields, drawn only when they are read."""

from __future__ import annotations

import pickle

import numpy as np

from retfound_dist.config.schema import Phantom
from shards.sources.phantom.generated import list_generated
from shards.sources.phantom.phantom import list_scans, render

CONFIG = Phantom(patients=5, volumes=2, slices=3, height=64, width=96, seed=11)


def test_every_scan_says_its_class_patient_eye_volume_and_slice() -> None:
    scans = list_generated(CONFIG)
    drawn = list_scans(patients=5, volumes_per_patient=2, slices_per_volume=3, seed=11)
    assert [(s.key, s.label, s.patient, s.volume, s.slice) for s in scans] == [
        (d.key, d.label, d.patient, d.volume, d.slice) for d in drawn
    ]
    assert [s.eye for s in scans[:6]] == ["R"] * 3 + ["L"] * 3
    assert {s.source for s in scans} == {"phantom"}
    assert {s.source for s in list_generated(CONFIG, "mine")} == {"mine"}


def test_a_scan_is_drawn_alike_in_another_process() -> None:
    """Packing sends the scan to a worker process as a pickle."""
    scan = list_generated(CONFIG)[4]
    (drawn,) = [
        d
        for d in list_scans(patients=5, volumes_per_patient=2, slices_per_volume=3, seed=11)
        if d.key == scan.key
    ]
    pixels = pickle.loads(pickle.dumps(scan)).read()
    assert pixels.shape == (64, 96)
    assert np.array_equal(pixels, render(drawn, seed=11, height=64, width=96))
