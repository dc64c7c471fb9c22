"""Heat maps of new images: those of the networks, averaged over seeds, in files of plain names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from retfound_dist.evaluate.classifier.classifier import load_classifier
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.prediction.drawing.heat_map_files import (
    BATCH,
    gradient_maps,
    picture_name,
    side_by_side,
    stale_pictures,
)


def test_a_map_is_the_mean_over_seeds_of_maps_with_a_sum_of_1(kept: Path) -> None:
    classifier = load_classifier(str(kept / "out"))
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (28, 28), dtype=np.uint8) for _ in range(BATCH + 3)]
    classes = [number % 3 for number in range(len(images))]
    maps = list(gradient_maps(classifier, images, classes))
    assert len(maps) == len(images)
    for place in (0, BATCH, BATCH + 2):
        of_seeds = [
            heat_maps(model, classifier.backbone, [images[place]], [classes[place]]).gradient[0]
            for model in classifier.models
        ]
        expected = np.mean([one / (one.sum() or 1) for one in of_seeds], axis=0)
        np.testing.assert_allclose(maps[place], expected, atol=1e-4)
    assert len({one.tobytes() for one in maps}) == len(maps)


def test_names_of_files_are_plain_and_differ_for_every_key() -> None:
    keys = ["a/b.jpg", "a_b.jpg", "../../etc/passwd", "/abs/x.png", "ü" * 300, "ü" * 301, "a b", "a:b", ""]
    keys.append(os.fsdecode(b"caf\xe9.jpg"))  # a file name that is not UTF-8
    names = [picture_name(key, ()) for key in keys]
    assert len(set(names)) == len(keys)
    for name in names:
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 150
        assert name.isascii()


def test_pictures_that_show_something_else_are_found_by_their_key() -> None:
    old, new, other = picture_name("a-1", "x"), picture_name("a-1", "y"), picture_name("a-2", "x")
    present = [old, new, other, "a-1.png", "notes-of-mine.png"]
    assert stale_pictures(present, ["a-1", "a-2"], {new, other}) == [old]
    assert stale_pictures(present, ["a-1"], {new}) == [old]


def test_the_picture_shows_the_image_and_its_map_beside_it() -> None:
    image = np.full((28, 28), 100, np.uint8)
    heat = np.zeros((2, 2))
    heat[0, 0] = 1
    pixels = side_by_side(image, [heat])
    assert pixels.shape == (28, 28 + 4 + 28, 3)
    assert (pixels[:, :28] == 100).all()
    mapped = pixels[:, 32:].astype(int)
    assert abs(mapped[2, 2] - 100).max() > 50
    assert abs(mapped[26, 26] - 100).max() <= 1
    both = side_by_side(image, [heat, heat.T[::-1]])
    assert both.shape == (28, 28 + 2 * (4 + 28), 3)
    assert np.array_equal(both[:, :60], side_by_side(image, [heat]))
