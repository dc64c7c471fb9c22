"""The generated corpus: who is in it, that it repeats, that its labels are honest and not cheap."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shards.sources.phantom.eye import bruch, columns
from shards.sources.phantom.phantom import CLASSES, PhantomScan, list_scans, plan, render

SEED = 5
HEIGHT, WIDTH = 192, 256


def picture(scan: PhantomScan, seed: int | None = None) -> NDArray[np.uint8]:
    return render(scan, seed=SEED if seed is None else seed, height=HEIGHT, width=WIDTH)


def test_keys_are_unique_and_hold_no_dots() -> None:
    scans = list_scans(patients=30, volumes_per_patient=2, slices_per_volume=12, seed=SEED)
    assert len({scan.key for scan in scans}) == len(scans) == 30 * 2 * 12
    assert all("." not in scan.key and "/" not in scan.key for scan in scans)
    assert scans[7].key == "phantom_p0000_OD_s07"


def test_classes_are_balanced_over_patients_who_have_one_class_each() -> None:
    labels = defaultdict(set)
    for scan in list_scans(patients=35, volumes_per_patient=2, slices_per_volume=2, seed=SEED):
        labels[scan.patient].add(scan.label)
    assert all(len(own) == 1 for own in labels.values())
    assert Counter(next(iter(own)) for own in labels.values()) == dict.fromkeys(CLASSES, 7)


def test_two_volumes_are_the_two_eyes_and_one_volume_is_either() -> None:
    both = list_scans(patients=8, volumes_per_patient=2, slices_per_volume=1, seed=SEED)
    assert [scan.eye for scan in both] == ["OD", "OS"] * 8
    single = list_scans(patients=30, slices_per_volume=1, seed=SEED)
    assert {scan.eye for scan in single} == {"OD", "OS"}
    assert {scan.volume for scan in single} <= {f"{s.patient}_{s.eye}" for s in single}


def test_more_patients_leave_the_first_ones_as_they_are() -> None:
    few = list_scans(patients=7, slices_per_volume=3, seed=SEED)
    assert list_scans(patients=90, slices_per_volume=3, seed=SEED)[: len(few)] == few


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"volumes": 3}, {"slices": 0}])
def test_impossible_counts_are_refused_and_named(wrong: dict[str, int]) -> None:
    counts = {"patients": 1, "volumes": 1, "slices": 1} | wrong
    with pytest.raises(ValueError, match="cannot be drawn"):
        list_scans(
            patients=counts["patients"],
            volumes_per_patient=counts["volumes"],
            slices_per_volume=counts["slices"],
            seed=SEED,
        )


def test_pixels_do_not_depend_on_the_order_of_rendering() -> None:
    scans = list_scans(patients=5, volumes_per_patient=2, slices_per_volume=3, seed=SEED)[::4]
    forward = {scan.key: picture(scan) for scan in scans}
    backward = {scan.key: picture(scan) for scan in reversed(scans)}
    assert all(np.array_equal(forward[key], backward[key]) for key in forward)


def test_pictures_are_grey_bytes_of_the_size_asked_for() -> None:
    scan = list_scans(patients=1, slices_per_volume=1, seed=SEED)[0]
    for height, width in ((192, 256), (256, 512), (64, 64), (101, 173)):
        pixels_HW = render(scan, seed=SEED, height=height, width=width)
        assert pixels_HW.shape == (height, width)
        assert pixels_HW.dtype == np.uint8
        assert pixels_HW.max() > 150
        assert np.percentile(pixels_HW, 10) < 60


def test_seeds_patients_eyes_and_slices_all_change_the_picture() -> None:
    scan = list_scans(patients=1, volumes_per_patient=2, slices_per_volume=2, seed=SEED)[0]
    others = [
        picture(scan, seed=SEED + 1),
        picture(replace(scan, patient="p0009")),
        picture(replace(scan, eye="OS")),
        picture(replace(scan, slice=1)),
    ]
    first = picture(scan)
    for other in others:
        assert (first != other).mean() > 0.5


def test_neighbouring_slices_resemble_each_other_more_than_distant_ones_and_other_eyes() -> None:
    near, far, strange = [], [], []
    volumes: dict[str, dict[int, NDArray[np.float32]]] = defaultdict(dict)
    for scan in list_scans(patients=10, slices_per_volume=9, seed=SEED):
        if scan.slice in (0, 4, 5, 8):
            smooth_HW = uniform_filter(picture(scan).astype(np.float32), 5)
            volumes[scan.patient][scan.slice] = smooth_HW
    for own, next_one in pairwise(volumes.values()):
        near.append(np.abs(own[4] - own[5]).mean())
        far.append(np.abs(own[0] - own[8]).mean())
        strange.append(np.abs(own[4] - next_one[4]).mean())
    assert np.mean(near) < 0.7 * np.mean(far)
    assert np.mean(near) < 0.3 * np.mean(strange)


def heights(scan: PhantomScan) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Micrometres of each pixel above Bruch's membrane, (H, W), and columns near the fovea, (W,)."""
    truth = plan(scan, seed=SEED)
    x_W = columns(truth.eye, WIDTH)
    z_H1 = ((np.arange(HEIGHT) + 0.5) / HEIGHT * truth.eye.depth)[:, None]
    return bruch(truth.eye, x_W, truth.y) - z_H1, np.abs(x_W) < 2.2


def darkest_column(scan: PhantomScan, low: float, high: float) -> float:
    """Grey between two heights (micrometres): the darkest column's over the bright columns'."""
    up_HW, near_W = heights(scan)
    band_HW = (up_HW > low) & (up_HW < high)
    mean_W = (picture(scan) * band_HW).sum(axis=0) / np.maximum(band_HW.sum(axis=0), 1)
    mean_W = np.convolve(mean_W, np.ones(3) / 3, "same")[near_W]
    return float(mean_W.min() / np.percentile(mean_W, 85))


def brightest_tissue(scan: PhantomScan) -> float:
    """Of all columns the one with least tissue between EZ and IPL: its brightest spot, relative."""
    up_HW, near_W = heights(scan)
    smooth_HW = uniform_filter(picture(scan).astype(np.float32), (5, 3))
    most_W = np.where((up_HW > 30) & (up_HW < 180), smooth_HW, 0.0).max(axis=0)[near_W]
    return float(most_W.min() / np.median(most_W))


def darkest_cyst(scan: PhantomScan) -> float:
    """The darkest spot under brighter tissue, over the mean grey beside it at its own height."""
    up_HW, near_W = heights(scan)
    pixel = up_HW[0, 0] - up_HW[1, 0]
    row_RW = np.rint((up_HW[0] - np.arange(330.0, 80.0, -pixel)[:, None]) / pixel)
    row_RW = np.clip(row_RW, 0, HEIGHT - 1).astype(np.intp)
    flat_RW = np.take_along_axis(picture(scan), row_RW, axis=0)[:, near_W].astype(np.float32)
    spot_RW = uniform_filter(flat_RW, 5, mode="nearest")
    beside_RW = uniform_filter(flat_RW, (5, 41), mode="nearest")
    covered_RW = np.maximum.accumulate(spot_RW, axis=0) > 1.35 * np.median(spot_RW[-8:])
    return float((spot_RW / beside_RW)[covered_RW].min())


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


def retina_at_fovea(scan: PhantomScan) -> float:
    """Micrometres from Bruch's membrane up to the inner surface, at the fovea."""
    up_HW, _ = heights(scan)
    fovea_W = np.abs(columns(plan(scan, seed=SEED).eye, WIDTH)) < 0.12
    row_H = picture(scan)[:, fovea_W].mean(axis=1)
    bright_H = np.convolve(row_H, np.ones(3) / 3, "same") > 0.3 * row_H.max()
    return float(up_HW[np.argmax(bright_H), fovea_W].mean())


def test_a_normal_eye_has_its_pit_in_the_central_slices() -> None:
    scans = list_scans(patients=60, slices_per_volume=9, seed=SEED)
    normal = [scan for scan in scans if scan.label == "NORMAL" and scan.slice in (0, 4)]
    height = np.array([retina_at_fovea(scan) for scan in normal]).reshape(-1, 2)
    assert (height[:, 1] < 280.0).all()
    assert np.mean(height[:, 0] - height[:, 1]) > 15.0


def test_a_linear_classifier_on_pixels_stays_far_from_solving_the_classes() -> None:
    scans = list_scans(patients=120, slices_per_volume=2, seed=SEED)
    label_N = np.array([scan.label for scan in scans])
    train_N = np.array([int(scan.patient[1:]) < 80 for scan in scans])
    pictures = [Image.fromarray(picture(scan)) for scan in scans]
    for side, strength in ((32, 1e-4), (32, 1e-2), (64, 1e-2)):
        small = [image.resize((side, side), Image.Resampling.BOX) for image in pictures]
        pixels_ND = np.stack([np.asarray(image, np.float32).ravel() for image in small])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-2, max_iter=300))
        model.fit(pixels_ND[train_N], label_N[train_N])
        guess_N = model.predict(pixels_ND[~train_N])
        assert balanced_accuracy_score(label_N[~train_N], guess_N) < 0.45
