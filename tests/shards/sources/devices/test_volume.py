"""What all readers of device files share: pseudonyms, eyes, scaling, and sizes that no volume has."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.errors import DataError
from shards.sources.devices.volume import check_pixels, eye_of, heidelberg_display, pseudonym, scale_slices


def test_a_pseudonym_is_the_same_for_one_number_and_none_where_nobody_is_named() -> None:
    assert pseudonym("MRN-4711") == pseudonym(" MRN-4711\0\0")
    assert pseudonym("MRN-4711") != pseudonym("MRN-4712")
    assert "4711" not in str(pseudonym("MRN-4711"))
    for nobody in (None, "", "0000", "anonymous", " \0"):
        assert pseudonym(nobody) is None


def test_every_makers_spelling_of_an_eye_is_known_and_both_eyes_are_none() -> None:
    assert [eye_of(text) for text in ("OD", "od\0", "R", "right", "Laterality.RIGHT")] == ["R"] * 5
    assert [eye_of(text) for text in ("OS", " L ", "left")] == ["L"] * 3
    assert [eye_of(text) for text in ("B", "OU", "", None)] == [None] * 4


def test_a_dark_slice_stays_dark_beside_its_neighbours() -> None:
    bright = np.linspace(0, 40_000, 4096).reshape(64, 64)
    dark, light = scale_slices(np.stack([bright / 4, bright]).astype(np.uint16))
    assert (dark.dtype, light.dtype) == (np.uint8, np.uint8)
    assert abs(int(light.max()) - 4 * int(dark.max())) <= 4


def test_8_bit_levels_keep_their_values_also_as_floats() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert (scale_slices(levels)[0] == levels[0]).all()
    assert (scale_slices(levels.astype(np.float64))[0] == levels[0]).all()


def test_what_was_not_measured_is_black_and_reflectance_follows_the_makers_formula() -> None:
    reflectance = np.array([[0.001, 0.01, 1.0], [np.nan, -1.0, np.finfo(np.float32).max]], np.float32)
    shown = heidelberg_display(reflectance)
    formula = 255 * (np.log(reflectance[0] + 2.44e-4) + 8.3) / 8.285
    assert np.abs(shown[0] - np.clip(formula, 0, 255)).max() <= 1
    assert (shown[1] == 0).all()


@pytest.mark.parametrize(
    ("width", "height", "count"), [(0, 4, 4), (4, -1, 4), (4, 4, 0), (40_000, 40_000, 1)]
)
def test_a_header_that_promises_no_volume_is_refused_before_memory_is_taken(
    width: int, height: int, count: int
) -> None:
    with pytest.raises(DataError, match=f"has a header of {count} B-scans of {width}x{height}"):
        check_pixels(width, height, count)
    check_pixels(1024, 1024, 800)  # a 12x12 mm swept-source cube
