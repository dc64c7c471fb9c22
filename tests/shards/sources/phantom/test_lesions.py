"""Every B-scan of a sick eye shows its lesion, and a healthy one shows none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shards.sources.phantom.eye import STREAM_LESION, columns, draw_eye, greys, keyed_rng, thicknesses
from shards.sources.phantom.lesions import LesionSection, dome, draw_lesion
from shards.sources.phantom.phantom import CLASSES, PhantomScan, list_scans
from tests.shards.sources.phantom.measurements import SEED, brightest_tissue, darkest_column, darkest_cyst

LESIONS: dict[str, tuple[Callable[[PhantomScan], float], float]] = {
    "MH": (brightest_tissue, 0.52),
    "CSR": (lambda scan: darkest_column(scan, 26, 48), 0.45),
    "AMRD": (lambda scan: darkest_column(scan, 0, 16), 0.65),
    "DR": (darkest_cyst, 0.6),
}
"""What a class's lesion darkens, and below which share of the healthy grey it counts as there:
a gap through the retina, fluid on the RPE, something under the RPE, holes within the retina."""


@pytest.mark.parametrize("label", LESIONS)
def test_every_slice_shows_its_lesion_and_normal_slices_do_not(label: str) -> None:
    measure, limit = LESIONS[label]
    scans = list_scans(patients=50, slices_per_volume=4, seed=SEED)
    own = {scan.key: measure(scan) for scan in scans if scan.label == label}
    assert {key: value for key, value in own.items() if value >= limit} == {}
    normal = np.array([measure(scan) for scan in scans if scan.label == "NORMAL"])
    # A broad vessel shadow can pass for a cyst in a measure as plain as these.
    assert np.mean(normal < limit) < 0.06


def test_a_dome_is_one_at_its_centre_and_nothing_beyond_its_rim() -> None:
    x_W = np.linspace(-2, 2, 401, dtype=np.float32)
    dome_W = dome(x_W, 0.0, (0.5, 0.0), (0.8, 0.3))
    assert dome_W.max() == pytest.approx(1.0, abs=1e-3)
    assert x_W[dome_W.argmax()] == pytest.approx(0.5, abs=0.01)
    assert (dome_W[np.abs(x_W - 0.5) > 0.81] == 0).all()
    assert (dome(x_W, 0.31, (0.5, 0.0), (0.8, 0.3)) == 0).all()


@pytest.mark.parametrize("label", CLASSES)
def test_a_lesion_raises_the_retina_by_no_more_than_it_says(label: str) -> None:
    for patient in range(6):
        lesion = draw_lesion(label, keyed_rng(SEED, STREAM_LESION, patient))
        eye = draw_eye(SEED, patient, 0, lift=lesion.lift)
        x_W = columns(eye, 200)
        healthy_KW = thicknesses(eye, x_W, 0.0, pit=lesion.pit)
        cut = LesionSection(healthy_KW.copy(), greys(eye, x_W, 0.0))
        lesion.deform(cut, x_W, 0.0)
        raised_W = np.maximum(cut.thick_KW, 0).sum(axis=0) - healthy_KW.sum(axis=0)
        # Cysts swell three layers by 12 micrometres beside the lift, and drusen are rough by a few.
        assert raised_W.max() <= lesion.lift + 40.0
        assert 0 < lesion.extent < 2
        assert 0 <= lesion.pit <= 1
