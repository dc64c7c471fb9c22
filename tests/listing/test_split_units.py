from __future__ import annotations

import pytest

from retfound_dist.listing.split_units import (
    assign_to_parts,
    describe_units,
    least_safe_kind,
    patients_of_units,
    unit_of,
)


@pytest.mark.parametrize(
    ("patient", "group", "volume", "rule", "unit"),
    [
        ("p", "g", "v", "volume", ("patient", "p")),
        ("p", "g", "v", "image", ("patient", "p")),
        (None, "g", "v", "volume", ("folder", "g")),
        (None, None, "v", "volume", ("volume", "v")),
        (None, "g", "v", "image", ("image", "key")),
        (None, None, None, "volume", ("image", "key")),
    ],
)
def test_the_surest_thing_that_is_known_keeps_images_together(
    patient: str | None, group: str | None, volume: str | None, rule: str, unit: tuple[str, str]
) -> None:
    assert unit_of("key", patient, group, volume, rule) == unit


def test_a_split_is_called_by_its_weakest_unit() -> None:
    assert least_safe_kind({"patient": 5}) == "patient"
    assert least_safe_kind({"patient": 5, "volume": 1}) == "volume"
    assert least_safe_kind({"patient": 5, "image": 1, "folder": 2}) == "image"
    assert describe_units({"patient": 1, "image": 4}) == (
        "by patient (1 image), by image (4 images, their patients are not known)"
    )


def test_a_volume_has_the_one_patient_that_some_of_its_slices_name() -> None:
    rows = [("v", "p"), ("v", None), ("w", "p"), ("w", "q"), (None, "r"), ("x", None)]
    assert patients_of_units(rows) == {"v": "p"}


def test_each_unit_goes_to_the_part_that_lacks_most_images() -> None:
    assert assign_to_parts([5, 3, 2, 2], [6, 3, 3]) == [0, 1, 2, 0]
    assert assign_to_parts([1, 1], [1, 1]) == [0, 1], "of equal ones the first"
    assert assign_to_parts([], [1, 1]) == []


def test_the_last_units_go_to_parts_that_are_empty_where_that_is_asked_for() -> None:
    assert assign_to_parts([1, 1, 1], [90, 1, 1]) == [0, 0, 0]
    assert assign_to_parts([1, 1, 1], [90, 1, 1], fill_empty=True) == [0, 1, 2]
    assert assign_to_parts([1], [1, 2, 1], fill_empty=True) == [1]
