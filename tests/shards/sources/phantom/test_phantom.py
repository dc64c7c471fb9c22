"""The generated corpus: who is in it, that it repeats, that its labels are honest and not cheap."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
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

from shards.sources.phantom.phantom import CLASSES, draw_anatomy, list_scans, render
from shards.sources.phantom.truth import truth_fields
from tests.shards.sources.phantom.measurements import (
    SEED,
    picture,
)


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


def test_a_lesion_in_some_slices_leaves_the_others_healthy_and_lies_anywhere() -> None:
    counts = {"patients": 40, "slices_per_volume": 7, "seed": SEED}
    firsts = set()
    for patient in range(40):
        scans = [s for s in list_scans(**counts, lesion_slices=2) if s.patient == f"p{patient:04d}"]
        if scans[0].label == "NORMAL":
            continue
        shown = [truth_fields(scan, seed=SEED, width=96)["lesions"] > 0 for scan in scans]
        assert sum(shown) == 2, scans[0]
        first = shown.index(True)
        assert shown[first + 1]
        firsts.add(first)
        places = [draw_anatomy(scan, seed=SEED).y for scan in scans]
        assert places == sorted(places)
        assert max(map(abs, places)) <= 2.5 + 1e-9
    assert firsts == {0, 1, 2, 3, 4, 5}


def test_a_lesion_in_all_slices_is_the_corpus_as_it_was() -> None:
    scans = list_scans(patients=4, slices_per_volume=3, seed=SEED)
    for one, all_slices in zip(
        scans, list_scans(patients=4, slices_per_volume=3, seed=SEED, lesion_slices=3), strict=True
    ):
        assert draw_anatomy(one, seed=SEED).y == draw_anatomy(all_slices, seed=SEED).y
        assert np.array_equal(picture(one), picture(all_slices))
    # Pixels of the corpus before volumes could be larger than their lesions.
    assert hashlib.sha256(picture(scans[4]).tobytes()).hexdigest()[:16] == "3786c526b57452f2"


def test_more_lesion_slices_than_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="3 of 2 slices cannot show the lesion"):
        list_scans(patients=1, slices_per_volume=2, seed=SEED, lesion_slices=3)
