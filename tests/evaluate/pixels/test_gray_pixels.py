from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import ImageError
from retfound_dist.evaluate.pixels.gray_pixels import decode_grey, resize_for_testing, resize_for_training
from retfound_dist.images import decoding


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def ramp(height: int, width: int) -> np.ndarray:
    """Value = row + column."""
    return np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)


def test_an_image_is_decoded_to_its_own_grey_values() -> None:
    pixels = ramp(40, 48)
    assert np.array_equal(decode_grey(png(pixels)), pixels)


@pytest.mark.parametrize("shape", [(1, 1), (31, 200), (200, 31)])
def test_an_image_that_is_too_small_is_refused_by_its_sides(shape: tuple[int, int]) -> None:
    data = png(np.zeros(shape, np.uint8))
    assert decoding.decode_grey(data).shape == shape, "the decoder itself does not mind"
    with pytest.raises(ImageError, match=f"is {shape[1]}x{shape[0]} pixels: a side is below 32"):
        decode_grey(data)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 48), (28, 34)),  # 48 x 28 / 40 = 33.6
        ((48, 40), (34, 28)),
        ((28, 90), (28, 90)),
        ((20, 20), (20, 20)),
    ],
)
def test_training_keeps_twice_the_side_at_the_shorter_one_and_never_enlarges(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    pixels = ramp(*shape)
    kept = resize_for_training(pixels, 14)
    assert kept.shape == expected
    if shape == expected:
        assert np.array_equal(kept, pixels)


@pytest.mark.parametrize("shape", [(256, 256), (256, 300), (300, 256)])
def test_an_image_of_256_is_cut_to_its_middle_224_and_not_resized(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    top, left = (shape[0] - 224) // 2, (shape[1] - 224) // 2
    assert np.array_equal(resize_for_testing(pixels, 224), pixels[top : top + 224, left : left + 224])


@pytest.mark.parametrize("shape", [(40, 48), (48, 40), (600, 500), (20, 20)])
def test_a_tested_image_is_square_contiguous_and_centred(shape: tuple[int, int]) -> None:
    height, width = shape
    pixels = np.zeros(shape, np.uint8)
    half = min(shape) // 5
    pixels[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = 255
    tested = resize_for_testing(pixels, 28)
    assert tested.shape == (28, 28)
    assert tested.flags["C_CONTIGUOUS"]
    rows, columns = np.nonzero(tested > 128)
    assert abs(rows.mean() - 13.5) <= 0.5
    assert abs(columns.mean() - 13.5) <= 0.5


def test_of_a_height_and_a_width_the_side_with_less_room_has_the_margin_of_256_to_224() -> None:
    pixels = ramp(100, 256)
    assert np.array_equal(resize_for_testing(pixels[:64, :128], (56, 112)), pixels[4:60, 8:120])
    assert resize_for_testing(pixels, (56, 112)).shape == (56, 112)
    assert resize_for_testing(pixels.T, (56, 112)).shape == (56, 112)
