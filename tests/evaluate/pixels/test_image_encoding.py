from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from retfound_dist.evaluate.pixels.image_encoding import (
    data_uri,
    decode_picture,
    encode_picture,
    overlay,
    round_heat_map,
)


def blob(side: int = 56) -> np.ndarray:
    """A smooth grey spot in the upper left, brighter than what is around it."""
    rows = np.arange(side)
    distance = np.hypot.outer(rows - side / 4, rows - side / 4)
    return (40 + 180 * np.exp(-((distance / (side / 5)) ** 2))).astype(np.uint8)


def test_a_grey_picture_comes_back_with_its_brightness_and_size() -> None:
    pixels = blob()[:40]
    again = decode_picture(encode_picture(pixels))
    assert again.shape == (40, 56)
    assert again.dtype == np.uint8
    assert np.abs(again.astype(int) - pixels).max() < 16


def test_a_data_uri_is_a_webp_file_that_any_reader_opens() -> None:
    colour = np.zeros((32, 48, 3), np.uint8)
    colour[..., 0] = 200
    head, _, text = data_uri(encode_picture(colour)).partition(",")
    assert head == "data:image/webp;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    assert (picture.format, picture.size) == ("WEBP", (48, 32))
    red, green, blue = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(0)
    assert red > 180
    assert max(green, blue) < 20


def test_a_map_is_plain_json_with_four_significant_digits() -> None:
    heat = np.array([[0.123456, 12345.6], [0.0, 1.23456e-7]])
    assert json.loads(json.dumps(round_heat_map(heat))) == [[0.1235, 12350.0], [0.0, 1.235e-7]]


def test_the_hottest_patch_is_yellow_and_the_coldest_shows_the_image() -> None:
    image = np.full((42, 28), 90, np.uint8)
    heat = np.full((3, 2), 5.0)
    heat[2, 0] = 9.0
    shown = overlay(image, heat.tolist()).astype(int)
    assert shown.shape == (42, 28, 3)
    red, green, blue = shown[38, 3]
    assert red > 200
    assert green > 150
    assert blue < red - 60
    assert np.abs(shown[3, 24] - 90).max() < 12


def test_heat_is_scaled_within_its_own_map_and_an_even_one_shows_nothing() -> None:
    image = blob()
    heat = np.arange(16.0).reshape(4, 4)
    assert np.array_equal(overlay(image, heat.tolist()), overlay(image, (1e6 + 1000 * heat).tolist()))
    even = overlay(image, np.full((4, 4), 3.0).tolist())
    assert np.array_equal(even, np.repeat(image[..., None], 3, axis=2))


def test_the_border_of_a_hot_patch_leaves_a_white_image_white() -> None:
    """Bicubic interpolation undershoots around a peak: unclipped, those pixels would pass 255 and turn black."""
    heat = np.zeros((7, 7))
    heat[3, 3] = 1.0
    shown = overlay(np.full((56, 56), 255, np.uint8), heat.tolist())
    assert shown.max(axis=2).min() > 200
