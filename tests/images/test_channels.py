"""From samples of any depth to upright 8-bit pixels; which pictures are grey."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retfound_dist.errors import ImageError
from retfound_dist.images import channels as product
from retfound_dist.images.decoding import decode, decode_colour, decode_grey
from tests.images.image_makers import channels, rgb, saved, scan

PIXELS = scan()


def big(seed: int = 0) -> NDArray[np.uint8]:
    return scan(seed, 200, 240)


@pytest.mark.parametrize("quality", [30, 60, 90])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_chroma_noise_of_a_jpeg_leaves_a_scan_grey(quality: int, subsampling: int) -> None:
    noise = np.random.default_rng(0).normal(0, 3, (200, 240, 3))
    noisy = np.clip(rgb(big()) + noise, 0, 255).astype(np.uint8)
    assert decode(saved(noisy, "JPEG", quality=quality, subsampling=subsampling)).ndim == 2


def test_a_few_loud_pixels_and_small_coloured_marks_leave_a_scan_grey() -> None:
    """Their share decides: 1 % of the pixels here, far off grey."""
    marked = rgb(big()).copy()
    marked[4:16, 5:45] = (0, 255, 0)  # an arrow or a logo: 1 % of the picture
    for data in (saved(marked, "PNG"), saved(marked, "JPEG", quality=90)):
        assert decode(data).ndim == 2
    speckled = rgb(big()).copy()
    places = np.random.default_rng(1).permutation(speckled.shape[0] * speckled.shape[1])[:480]
    speckled.reshape(-1, 3)[places] = (255, 0, 0)
    assert decode(saved(speckled, "PNG")).ndim == 2


def test_colour_of_more_than_a_share_of_the_pixels_stays_colour() -> None:
    marked = rgb(big()).copy()
    marked[:6] = (0, 255, 0)  # 3 %
    assert (decode(saved(marked, "PNG")) == marked).all()
    rows, columns = np.mgrid[:200, :240]
    disc = (rows - 100) ** 2 + (columns - 120) ** 2 < 60**2  # a fundus takes a quarter of its picture
    fundus = (disc[..., None] * np.array([180, 90, 40]) * (0.6 + big()[..., None] / 640)).astype(np.uint8)
    assert (decode(saved(fundus, "PNG")) == fundus).all()
    assert decode(saved(fundus, "JPEG", quality=75)).ndim == 3


def test_grey_of_colour_is_its_luminance() -> None:
    colour = channels(PIXELS, PIXELS // 2, 255 - PIXELS)
    found = decode_grey(saved(colour, "PNG"))
    wanted = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - wanted).max() <= 1
    assert (decode_colour(saved(PIXELS, "PNG")) == rgb(PIXELS)).all()


@pytest.mark.parametrize(("height", "width"), [(1, product.MAX_PIXELS), (5000, 10_000)])
def test_as_many_pixels_as_a_scan_may_have_are_taken_and_a_row_more_is_refused(
    height: int, width: int
) -> None:
    product.check_pixel_count(height, width)
    with pytest.raises(ImageError, match=r"more than 50,000,000"):
        product.check_pixel_count(height + 1, width)
    with pytest.raises(ImageError, match=rf"is {width}x0 pixels"):
        product.check_pixel_count(0, width)


@pytest.mark.parametrize(
    ("stored", "bits", "shown"),
    [
        (np.array([0, 1, 3], np.uint8), 2, [0, 85, 255]),
        (np.array([0, 200, 255], np.uint8), 8, [0, 200, 255]),
        (np.array([False, True]), 0, [0, 255]),
        (np.array([-5, 0, 5], np.int16), 0, [0, 128, 255]),
    ],
)
def test_every_depth_fills_eight_bits(stored: NDArray[Any], bits: int, shown: list[int]) -> None:
    assert product.scale_to_8_bit(stored, bits).tolist() == shown


def test_samples_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ImageError, match="samples of type complex64: save it as 8 or 16 bit"):
        product.scale_to_8_bit(np.ones((2, 2), np.complex64))
    with pytest.raises(ImageError, match="not finite"):
        product.scale_to_8_bit(np.array([1.0, np.inf]))


@pytest.mark.parametrize(
    ("stored", "bits", "inverted"),
    [
        (np.array([0, 4095], np.uint16), 0, [4095, 0]),
        (np.array([0, 4095], np.uint16), 16, [65535, 61440]),
        (np.array([0, 3], np.uint8), 2, [3, 0]),
        (np.array([False, True]), 1, [True, False]),
        (np.array([-32768, 32767], np.int16), 0, [32767, -32768]),
        (np.array([0.0, 0.25, 1.0]), 0, [1.0, 0.75, 0.0]),
        (np.array([0.0, 50.0, 200.0]), 0, [200.0, 150.0, 0.0]),
    ],
)
def test_white_at_zero_becomes_black_at_zero_within_the_depth_in_use(
    stored: NDArray[Any], bits: int, inverted: list[Any]
) -> None:
    assert product.invert(stored, bits).tolist() == inverted


def test_alpha_lays_a_picture_over_black_in_its_own_type() -> None:
    values = np.array([[100, 100, 100]], np.uint8)
    laid = product.blend_over_black(values, np.array([[0, 51, 255]], np.uint8))
    assert (laid.dtype, laid.tolist()) == (np.uint8, [[0, 20, 100]])
    half = product.blend_over_black(channels(values, values, values), np.array([[0.0, 0.5, 1.0]]))
    assert half[0].tolist() == [[0] * 3, [50] * 3, [100] * 3]
    assert product.blend_over_black(values, np.full((1, 3), 255, np.uint8)) is values
    with pytest.raises(ImageError, match="fully transparent"):
        product.blend_over_black(values, np.zeros((1, 3), np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_undone_as_exif_defines_it(orientation: int) -> None:
    """EXIF 2.32: the tag names the visual side at which the first row and the first column lie."""
    sides = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}[orientation]
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    found = product.apply_orientation(stored, orientation)
    transposed = sides[0] in "lr"
    assert found.shape == ((3, 2) if transposed else (2, 3))
    vertical, horizontal = (sides[1], sides[0]) if transposed else (sides[0], sides[1])
    corner = found[0 if vertical == "t" else -1, 0 if horizontal == "l" else -1]
    assert corner == stored[0, 0]
    # The end of the first stored row lies along the side that the tag names.
    row_end = found[0 if vertical == "t" else -1, -1 if horizontal == "l" else 0]
    column_end = found[-1 if vertical == "t" else 0, 0 if horizontal == "l" else -1]
    assert (column_end if transposed else row_end) == stored[0, -1]


def test_an_unknown_orientation_counts_as_upright() -> None:
    assert product.apply_orientation(PIXELS, 9).tolist() == PIXELS.tolist()
