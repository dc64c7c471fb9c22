"""A set that cannot be scored by volume, eye or patient is refused, and says what to do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from retfound_dist.errors import DataError
from retfound_dist.listing.unit_checks import check_set


@dataclass(frozen=True)
class Slice:
    """An image with its label."""

    key: str
    label: str = "AMD"
    patient: str | None = "p"
    volume: str | None = None
    eye: str | None = None
    split: str | None = "train"


def test_images_are_always_scored() -> None:
    assert check_set([Slice("a", patient=None), Slice("b", "NORMAL", None)], "image", "set", False) == ()


@pytest.mark.parametrize(
    ("unit", "needed"), [("volume", "the volume"), ("eye", "patient and eye"), ("patient", "the patient")]
)
def test_a_unit_that_no_image_names_is_refused(unit: str, needed: str) -> None:
    with pytest.raises(
        DataError, match=rf"data.unit='{unit}' needs {needed} .* none of the 2 images"
    ) as error:
        check_set([Slice("a", patient=None), Slice("b", patient=None)], unit, "set", False)
    assert 'score by data.unit="image"' in str(error.value)
    assert "\n" not in str(error.value)


def test_where_only_volumes_are_known_the_remedy_is_to_score_volumes() -> None:
    with pytest.raises(DataError, match=r'score by data\.unit="volume"'):
        check_set([Slice("a", volume="v"), Slice("b", volume="v")], "eye", "set", False)


def test_images_whose_eye_is_missing_are_counted_and_named() -> None:
    slices = [Slice("a", eye="L"), Slice("b"), *(Slice(f"c{i}", volume="v") for i in range(5))]
    assert check_set(slices, "eye", "set", False) == (
        "the eye of 6 of 7 images is not known; they are scored 1 alone (b), "
        "5 with their volume (c0, c1, c2, ...)",
    )


def test_labels_of_one_eye_that_differ_are_named_with_a_remedy() -> None:
    slices = [Slice("a", eye="L"), Slice("b", "NORMAL", eye="L"), Slice("c", eye="R")]
    with pytest.raises(
        DataError, match=r"1 eye has images of two classes, first 'p L' with AMD \(a\)"
    ) as error:
        check_set(slices, "eye", "set", False)
    assert "NORMAL (b)" in str(error.value)
    assert "data.labels" in str(error.value)
    assert 'data.unit = "volume" or "image"' in str(error.value)


def test_both_eyes_of_a_patient_may_have_different_labels_only_where_eyes_are_scored() -> None:
    slices = [Slice("a", eye="L"), Slice("b", "NORMAL", eye="R")]
    assert check_set(slices, "eye", "set", False) == ()
    with pytest.raises(DataError, match="1 patient has images of two classes"):
        check_set(slices, "patient", "set", False)


def test_a_unit_in_two_parts_is_refused_unless_leaks_are_allowed() -> None:
    slices = [Slice("a", volume="v"), Slice("b", volume="v", split="test")]
    with pytest.raises(
        DataError, match=r"volume 'v' is in two parts of the split, train \(a\) and test \(b\)"
    ):
        check_set(slices, "volume", "set", False)
    assert check_set(slices, "volume", "set", True) == ()
