from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retfound_dist.stream.augment import (
    Augment,
    Draw,
    apply_augmentation,
    crop_box,
    draw_augmentation,
    resize,
)
from retfound_dist.stream.batch_plan import generator

HOW = Augment(size=(28, 28), patches=4, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)


def augment(
    pixels: np.ndarray, how: Augment, seed: int, epoch: int, sample: int
) -> tuple[np.ndarray, np.ndarray]:
    """Into new arrays."""
    colours = 1 if pixels.ndim == 2 else 3
    out = np.zeros((colours, *how.size), np.uint8)
    noise = np.zeros(how.patches, np.float32)
    drawn = draw_augmentation(how, seed, epoch, sample, pixels.shape[1], pixels.shape[0], noise)
    apply_augmentation(drawn, pixels, out)
    return out, noise


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


def test_the_same_sample_and_epoch_draw_the_same_and_others_do_not() -> None:
    first, noise = augment(picture(), HOW, seed=1, epoch=2, sample=3)
    again, noise_again = augment(picture(), HOW, seed=1, epoch=2, sample=3)
    assert np.array_equal(first, again)
    assert np.array_equal(noise, noise_again)
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)]:
        assert not np.array_equal(first, augment(picture(), HOW, *other)[0])


def test_shapes_and_types_of_grey_and_rgb() -> None:
    grey, noise = augment(picture(), HOW, 0, 0, 0)
    assert (grey.shape, grey.dtype) == ((1, 28, 28), np.uint8)
    assert (noise.shape, noise.dtype) == ((4,), np.float32)
    rgb, _ = augment(np.dstack([picture()] * 3), HOW, 0, 0, 0)
    assert np.array_equal(rgb, np.repeat(grey, 3, axis=0))


@pytest.mark.parametrize(
    "shape",
    [(60, 90), (61, 91), (224, 224), (500, 333), (100, 40), (300, 200), (244, 231), (3, 5), (300, 300, 3)],
)
@pytest.mark.parametrize("size", [(28, 28), (30, 30), (224, 224), (64, 224), (224, 64)])
def test_resizing_is_pillows_antialiased_bicubic(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).rayleigh(40, shape).clip(0, 255).astype(np.uint8)
    ours = resize(noise, size).astype(float)
    theirs = np.asarray(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC)).astype(float)
    error = ours - (theirs[None] if theirs.ndim == 2 else theirs.transpose(2, 0, 1))
    # torch 2.10 rounds more coarsely where only one side changes its size
    most, least_db = (2, 60) if torch.__version__ >= "2.15" else (6, 53)
    assert np.abs(error).max() <= most
    assert 10 * np.log10(255**2 / max((error**2).mean(), 1e-9)) > least_db


def test_real_scans_are_resized_as_pillow_does(test_data: Path) -> None:
    for path in sorted((test_data / "octdl").rglob("*.jpg"))[::150]:
        pixels = np.asarray(Image.open(path).convert("L"))
        theirs = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC))
        error = resize(pixels, (224, 224))[0].astype(float) - theirs
        assert 10 * np.log10(255**2 / (error**2).mean()) > 60


def test_only_the_pixels_inside_the_crop_are_seen() -> None:
    inside = np.full((40, 40), 10, np.uint8)
    framed = np.full((60, 90), 250, np.uint8)
    framed[10:50, 20:60] = inside
    assert np.array_equal(resize(framed[10:50, 20:60], (28, 28)), resize(inside, (28, 28)))


def test_crops_have_the_stated_areas_and_shapes_and_lie_inside() -> None:
    shares, ratios = [], []
    for sample in range(2000):
        left, top, width, height = crop_box(generator(0, 3, 0, sample), 512, 496, HOW.scale, HOW.ratio)
        assert 0 <= left <= 512 - width
        assert 0 <= top <= 496 - height
        shares.append(width * height / (512 * 496))
        ratios.append(width / height)
    assert 0.19 < min(shares) < 0.25
    assert 0.9 < max(shares) <= 1
    assert 0.74 < min(ratios) < 0.78
    assert 1.29 < max(ratios) < 1.35


def test_half_of_the_samples_are_flipped() -> None:
    ramp = np.tile(np.arange(90, dtype=np.uint8), (60, 1))
    flipped = [bool(x[0, 0, 0] > x[0, 0, -1]) for x in (augment(ramp, HOW, 0, 0, s)[0] for s in range(600))]
    assert 240 < sum(flipped) < 360


def test_a_shape_no_crop_fits_falls_back_to_the_centre() -> None:
    assert crop_box(generator(0, 3, 0, 0), 1000, 10, (0.9, 1.0), HOW.ratio) == (493, 0, 13, 10)


def test_a_flipped_crop_is_the_mirror_of_the_crop_that_is_not_flipped() -> None:
    """Cut at left 20, top 10, 40 wide and 30 high; the result has the crop's own size, so nothing is resized."""
    pixels = picture()
    out = {flipped: np.zeros((1, 30, 40), np.uint8) for flipped in (False, True)}
    for flipped, into in out.items():
        apply_augmentation(Draw(20, 10, 40, 30, flipped), pixels, into)
    assert np.array_equal(out[False][0], pixels[10:40, 20:60])
    assert np.array_equal(out[True][0], pixels[10:40, 20:60][:, ::-1])


@pytest.mark.parametrize(("flip", "flipped"), [(0.0, 0), (1.0, 50)])
def test_none_or_all_are_flipped_where_the_config_says_so(flip: float, flipped: int) -> None:
    noise = np.zeros(4, np.float32)
    assert (
        sum(draw_augmentation(replace(HOW, flip=flip), 0, 0, s, 90, 60, noise).flipped for s in range(50))
        == flipped
    )


def test_crop_flip_and_noise_are_drawn_in_turn_from_the_sample_s_own_numbers() -> None:
    """Forty numbers for ten tries of area, shape, left and top; one for the flip; then the mask's noise. A run goes
    on with the same crops and masks under a later version: this may not change."""
    for sample in range(40):
        numbers = generator(1, 3, 2, sample)
        tries = numbers.random(40).reshape(10, 4)
        expected = None
        for share, shape, across, down in tries:
            area = 90 * 60 * (0.2 + 0.8 * share)
            aspect = (3 / 4) ** (1 - shape) * (4 / 3) ** shape
            w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if w <= 90 and h <= 60:
                expected = (int(across * (91 - w)), int(down * (61 - h)), w, h)
                break
        flipped = numbers.random() < 0.5
        noise = np.zeros(4, np.float32)
        found = draw_augmentation(HOW, 1, 2, sample, 90, 60, noise)
        assert expected is not None
        assert (found.left, found.top, found.width, found.height, found.flipped) == (*expected, flipped)
        assert np.array_equal(noise, numbers.random(4, dtype=np.float32))


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 10), (493, 0, 13, 10)),  # too wide: 4/3 of the height
        ((10, 1000), (0, 493, 10, 13)),  # too high: 4/3 of the width
        ((1000, 1000), (0, 0, 1000, 1000)),
        ((120, 100), (0, 0, 120, 100)),
    ],
)
def test_where_no_crop_fits_the_largest_of_a_permitted_shape_is_taken_from_the_middle(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """Asked for three to four times the image's area, no try can fit."""
    assert crop_box(generator(0, 3, 0, 0), *size, (3.0, 4.0), HOW.ratio) == box


def test_a_crop_may_be_the_whole_image() -> None:
    assert crop_box(generator(0, 3, 0, 0), 64, 64, (1.0, 1.0), (1.0, 1.0)) == (0, 0, 64, 64)
    assert crop_box(generator(0, 3, 0, 0), 1, 1, (1.0, 1.0), (1.0, 1.0)) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("shape", "size"), [((10, 9), (5, 5)), ((11, 9), (4, 6)), ((13, 5), (7, 5)), ((6, 6), (6, 6))]
)
def test_a_crop_that_has_the_size_already_is_left_as_it_is_and_any_width_and_height_is_resized(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """Heights and widths of every remainder by four: rows and columns are resized four at a time."""
    for extra in range(4):
        pixels = np.random.default_rng(extra).integers(
            0, 256, (shape[0] + extra, shape[1] + extra), dtype=np.uint8
        )
        theirs = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(resize(pixels, size)[0] - theirs).max() <= 2
        assert np.array_equal(resize(pixels, pixels.shape)[0], pixels)
