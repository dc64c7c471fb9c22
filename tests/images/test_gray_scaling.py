"""Images of more than 8 bit, made 8."""

import numpy as np
import pytest

from retfound_dist.images.gray_scaling import to_8_bit


def test_8_bit_stays_as_it_is() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert to_8_bit(pixels) is pixels


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_thousandth_is_clipped_to_white_and_zero_stays_black(kind: type) -> None:
    ramp = np.linspace(0, 1000, 100_001).astype(kind)
    scaled = to_8_bit(ramp)
    assert (scaled.dtype, scaled[0], scaled[-1]) == (np.uint8, 0, 255)
    assert abs(int(scaled[50_000]) - 255 * 500 / 999) <= 1
    spiked = np.concatenate([ramp, np.full(20, 60_000).astype(kind)])  # a few hot pixels change nothing
    assert np.abs(to_8_bit(spiked)[:-20].astype(int) - scaled).max() <= 1


def test_the_least_value_is_black_and_an_empty_picture_too() -> None:
    assert to_8_bit(np.array([-100.0, 0.0, 100.0], np.float32)).tolist() == [0, 128, 255]
    assert not to_8_bit(np.zeros((4, 4), np.uint16)).any()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        to_8_bit(np.array([1.0, np.nan], np.float32))
