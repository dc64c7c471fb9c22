"""Which volume, eye or patient an image belongs to, and how that is named."""

from __future__ import annotations

import pytest

from retfound_dist.listing.unit_names import NamedImage, index_units

SLICES = [
    NamedImage("a", "p1", "p1_od", "R"),
    NamedImage("b", "p1", "p1_od", "R"),
    NamedImage("c", "p1", "p1_os", "L"),
    NamedImage("d", "p2", "p2_od", "R"),
]


@pytest.mark.parametrize(
    ("unit", "names", "numbers"),
    [
        ("image", ("a", "b", "c", "d"), [0, 1, 2, 3]),
        ("volume", ("p1_od", "p1_os", "p2_od"), [0, 0, 1, 2]),
        ("eye", ("p1 L", "p1 R", "p2 R"), [1, 1, 0, 2]),
        ("patient", ("p1", "p2"), [0, 0, 0, 1]),
    ],
)
def test_each_unit_joins_its_images(unit: str, names: tuple[str, ...], numbers: list[int]) -> None:
    index = index_units(SLICES, unit)
    assert index.names == names
    assert index.unit_of_image_N.tolist() == numbers
    assert index.fallbacks == ()
    assert [numbers[i] for i in index.first_images_U] == list(range(len(names)))
    assert sorted(int(i) for images in index.images_of_units for i in images) == [0, 1, 2, 3]
    assert all({numbers[i] for i in images} == {unit} for unit, images in enumerate(index.images_of_units))


def test_two_scans_of_one_eye_are_one_eye_and_two_volumes() -> None:
    scans = [NamedImage("a", "p", "first", "R"), NamedImage("b", "p", "second", "R")]
    assert index_units(scans, "eye").names == ("p R",)
    assert index_units(scans, "volume").names == ("first", "second")


def test_volumes_of_one_name_are_two_where_their_patients_differ() -> None:
    scans = [NamedImage("a", "p", "1"), NamedImage("b", "q", "1"), NamedImage("c", "q", "2")]
    assert index_units(scans, "volume").names == ("2", "p 1", "q 1")


@pytest.mark.parametrize(
    ("unit", "names", "scans"),
    [
        ("volume", ("p 1 (1)", "p 1 (2)", "q 1"),
         [NamedImage("a", "p", "1"), NamedImage("b", "q", "1"), NamedImage("c", None, "p 1")]),
        ("patient", ("volume v (1)", "volume v (2)", "volume v (3)"),
         [NamedImage("a", "volume v"), NamedImage("b", None, "v"), NamedImage("c", "volume v (3)")]),
        ("eye", ("image x L (1)", "image x L (2)"), [NamedImage("a", "image x", None, "L"), NamedImage("x L")]),
    ],
)  # fmt: skip
def test_two_units_that_would_have_one_name_stay_two(
    unit: str, names: tuple[str, ...], scans: list[NamedImage]
) -> None:
    for images in (scans, scans[::-1]):
        index = index_units(images, unit)
        assert index.names == names
        assert sorted(index.unit_of_image_N.tolist()) == [0, 1, 2][: len(scans)]


def test_an_eye_that_some_slices_name_is_that_of_their_whole_volume() -> None:
    scans = [NamedImage("a", "p", "v", "R"), NamedImage("b", "p", "v"), NamedImage("c", "p", "w")]
    index = index_units(scans, "eye")
    assert index.names == ("p R", "volume w")
    assert index.unit_of_image_N.tolist() == [0, 0, 1]
    assert index.fallbacks == (("volume", "c"),)


def test_an_image_without_anything_stands_alone() -> None:
    index = index_units([NamedImage("a", "p", None, "L"), NamedImage("b", "p"), NamedImage("c")], "eye")
    assert index.names == ("image b", "image c", "p L")
    assert index.fallbacks == (("image", "b"), ("image", "c"))


def test_an_empty_part_has_no_units() -> None:
    index = index_units([], "eye")
    assert len(index) == 0
    assert index.images_of_units == []
    assert index.first_images_U.tolist() == []
