"""The true values of a generated scan: they follow from its class, and do not change its picture."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict

import numpy as np

from retfound_dist.config.schema import Phantom
from shards.sources.phantom.generated import list_generated
from shards.sources.phantom.phantom import list_scans, render
from shards.sources.phantom.truth import TARGETS, truth_fields
from tests.shards.sources.phantom.measurements import SEED

SCANS = list_scans(patients=60, slices_per_volume=3, seed=SEED)
TRUTH = [truth_fields(scan, seed=SEED, width=256) for scan in SCANS]


def of_class(label: str, name: str) -> np.ndarray:
    return np.array([truth[name] for scan, truth in zip(SCANS, TRUTH, strict=True) if scan.label == label])


def test_healthy_eyes_have_no_lesion_and_sick_ones_show_theirs() -> None:
    flags = [name for name in TARGETS if name.startswith("has_")]
    assert all(not of_class("NORMAL", name).any() for name in ("lesions", "severity", *flags))
    for label, flag in {"MH": "hole", "AMRD": "deposits", "CSR": "fluid", "DR": "cysts"}.items():
        assert of_class(label, f"has_{flag}").all(), label
    assert not of_class("CSR", "has_hole").any()
    assert not of_class("AMRD", "has_cysts").any()


def test_every_flag_and_grade_has_examples_of_both_answers() -> None:
    for name in TARGETS:
        assert len({truth[name] for truth in TRUTH}) > 1, name
    assert {truth["severity"] for truth in TRUTH} == {0, 1, 2, 3}
    lesions, severity = (np.array([truth[name] for truth in TRUTH]) for name in ("lesions", "severity"))
    assert (severity == np.searchsorted([1, 3, 8], lesions, side="right")).all()


def test_thickness_is_that_of_a_retina_and_age_is_the_same_in_a_volume() -> None:
    healthy = of_class("NORMAL", "thickness_um")
    assert healthy.min() > 200
    assert healthy.max() < 450
    assert of_class("DR", "thickness_um").mean() > healthy.mean()
    ages = defaultdict(set)
    for scan, truth in zip(SCANS, TRUTH, strict=True):
        ages[scan.volume].add(truth["age_like"])
    assert all(len(own) == 1 for own in ages.values())
    known = [next(iter(own)) for own in ages.values()]
    assert 0 < min(known) < 40
    assert 60 < max(known) < 100


def test_a_packed_scan_has_the_true_values_and_its_picture_is_as_before() -> None:
    config = Phantom(patients=5, volumes=1, slices=2, height=64, width=96, seed=11)
    scan = list_generated(config)[3]
    pixels = scan.read()
    assert scan.extra_fields is not None
    assert list(scan.extra_fields()) == list(TARGETS)
    assert json.loads(json.dumps(scan.extra_fields())) == scan.extra_fields()
    (drawn,) = [d for d in list_scans(patients=5, slices_per_volume=2, seed=11) if d.key == scan.key]
    assert np.array_equal(pixels, render(drawn, seed=11, height=64, width=96))
    # Measured before the true values were exported.
    assert hashlib.sha256(np.asarray(pixels).tobytes()).hexdigest()[:16] == "aa897caa91469d5a"
