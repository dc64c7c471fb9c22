"""Statistics of a set: sums over shards, medians, levels, and what the encoding has lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.schema import PackImage
from shards.images.preparation import decode
from shards.pack import pack
from shards.write.statistics import Statistics, image_section, median, psnr, sum_statistics
from tests.shards.pack_inputs import pack_config, write_classes
from tests.shards.packed_samples import read_images


def test_the_loss_of_the_encoding_is_measured(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 60}, "png")
    found = {
        quality: pack(pack_config(images, tmp_path / str(quality), image={"quality": quality})).image
        for quality in (60, 95)
    }
    assert found[95]["psnr_images"] >= 3
    assert 20 < found[60]["psnr_db"] < found[95]["psnr_db"] < 60
    errors = []
    for key, data in read_images(tmp_path / "60", "jpg").items():
        errors.append(
            (decode(data).astype(float) - np.asarray(Image.open(images / "A" / f"{key[2:]}.png"))) ** 2
        )
    assert found[60]["psnr_db"] == pytest.approx(10 * np.log10(255**2 / np.mean(errors)), abs=1.0)
    assert "PSNR" in (tmp_path / "60" / "DATACARD.md").read_text()


def test_images_kept_as_they_came_have_lost_nothing(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 40})
    assert pack(pack_config(images, tmp_path / "out")).image["psnr_db"] is None
    assert "PSNR" not in (tmp_path / "out" / "DATACARD.md").read_text()


def counted(heights: dict[int, int], levels: dict[int, int], **more: int) -> Statistics:
    histogram = np.zeros(256, np.int64)
    histogram[list(levels)] = list(levels.values())
    return Statistics(heights=Counter(heights), widths=Counter(heights), histogram=histogram, **more)


def test_shards_sum_to_the_set_and_survive_their_json() -> None:
    one = counted({48: 2}, {10: 5}, grey=2, bytes=100, as_is=1, measured=1, encoding_error=6, pixels=50)
    two = counted(
        {48: 1, 96: 1}, {10: 1, 20: 6}, grey=1, colour=1, bytes=50, measured=1, encoding_error=4, pixels=50
    )
    whole = sum_statistics(
        Statistics.from_tree(json.loads(json.dumps(part.to_tree()))) for part in (one, two)
    )
    assert (whole.grey, whole.colour, whole.as_is, whole.bytes) == (3, 1, 1, 150)
    assert whole.heights == {48: 3, 96: 1}
    assert (whole.measured, whole.encoding_error, whole.pixels) == (2, 10, 100)
    assert whole.histogram[[10, 20]].tolist() == [6, 6]


def test_mean_and_spread_are_those_of_the_pixels_behind_the_histogram() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, 10_000)
    levels = dict(enumerate(np.bincount(pixels, minlength=256).tolist()))
    image = image_section(counted({48: 4}, levels, grey=4, bytes=1000), PackImage())
    assert image["mean"] == pytest.approx(pixels.mean(), abs=1e-3)
    assert image["std"] == pytest.approx(pixels.std(), abs=1e-3)
    assert image["bytes_per_image"] == 250


def test_psnr_follows_its_definition_and_is_unknown_without_a_loss() -> None:
    assert psnr(100 * 255**2, 100) == 0
    assert psnr(100, 100) == pytest.approx(48.13, abs=0.01)  # an error of one level everywhere
    assert psnr(0, 100) is None
    assert psnr(0, 0) is None


def test_the_median_of_an_even_count_is_the_lower_one() -> None:
    assert median(Counter([3, 1, 2])) == 2
    assert median(Counter({10: 2, 20: 2})) == 10
    with pytest.raises(ValueError, match="no values"):
        median(Counter())
