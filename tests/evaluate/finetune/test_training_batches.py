from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retfound_dist.config.schema import EvalData, Finetune
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.finetune.training_batches import (
    EpochBatches,
    _posterize,
    batches,
    seeded_generators,
)
from tests.evaluate.inputs import class_folders


@pytest.fixture
def data(tmp_path: Path) -> LabelledSet:
    return load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set"))), 28)


def test_every_image_comes_once_an_epoch_in_another_order() -> None:
    rows = list(EpochBatches(10, 2, 4, seed=0))
    assert [len(batch) for batch in rows] == [4, 4, 2, 4, 4, 2]
    first, second = list(chain(*rows[:3])), list(chain(*rows[3:]))
    assert sorted(first) == [(0, i) for i in range(10)]
    assert [i for _, i in first] != [i for _, i in second]


def test_the_recipe_s_augmentation_runs_on_every_image(data: LabelledSet) -> None:
    train = data.parts["train"]
    recipe = Finetune(epochs=20, batch=6)
    for images, labels in batches(train.images, train.labels.tolist(), recipe, 28, 0, 0):
        assert images.shape == (len(labels), 3, 28, 28)
        assert images.dtype == torch.uint8


@pytest.mark.slow
def test_batches_do_not_depend_on_the_number_of_workers(data: LabelledSet) -> None:
    train = data.parts["train"]
    recipe = Finetune(epochs=2, batch=6)
    here, there = (
        list(batches(train.images, train.labels.tolist(), recipe, 28, 0, workers)) for workers in (0, 2)
    )
    assert len(here) == len(there)
    for (a, x), (b, y) in zip(here, there, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(x, y)


def plain_images(count: int = 9) -> list[np.ndarray]:
    """Image i is 20 i everywhere, each of another size."""
    return [np.full((30 + i, 40 - i), 20 * i, np.uint8) for i in range(count)]


def test_every_image_comes_with_its_own_label_in_the_order_of_its_epoch() -> None:
    recipe = Finetune(epochs=2, batch=4, randaugment="")
    order = list(EpochBatches(9, 2, 4, seed=3))
    assert len(EpochBatches(9, 2, 4, seed=3)) == len(order) == 6
    found = list(batches(plain_images(), [100 + i for i in range(9)], recipe, 28, 3, 0))
    for (images, labels), rows in zip(found, order, strict=True):
        assert labels.tolist() == [100 + i for _, i in rows]
        assert images.flatten(1).unique(dim=1).tolist() == [[20 * i] for _, i in rows]


def test_orders_are_numpys_draws_from_seed_and_epoch() -> None:
    expected = [np.random.default_rng([3, 11, epoch]).permutation(9).tolist() for epoch in range(2)]
    rows = list(chain(*EpochBatches(9, 2, 4, seed=3)))
    assert [[i for epoch, i in rows if epoch == number] for number in range(2)] == expected


def seen(recipe: Finetune, epochs: int = 40) -> torch.Tensor:
    """One picture in each of so many epochs: (epochs, 3, 28, 28). It brightens from left to right."""
    ramp = np.tile(np.linspace(40, 200, 56).astype(np.uint8), (56, 1))
    recipe = replace(recipe, epochs=epochs, batch=1)
    return torch.cat([images for images, _ in batches([ramp], [0], recipe, 28, 0, 0)])


def test_crops_have_the_share_of_the_area_that_the_recipe_says_and_half_are_flipped() -> None:
    plain = Finetune(randaugment="")
    whole, small = (
        seen(replace(plain, crop_scale=(1.0, 1.0))).float(),
        seen(replace(plain, crop_scale=(0.05, 0.1))).float(),
    )
    reach = [(x[:, 0, 14, -1] - x[:, 0, 14, 0]) for x in (whole, small)]
    assert (reach[0].abs() > 110).all()  # of 160 from edge to edge: at least 3/4 of the width
    assert (reach[1].abs() < 70).all()
    for one in reach:
        assert 8 <= int((one < 0).sum()) <= 32
    assert torch.equal(whole[:, 0], whole[:, 2])  # grey


def test_every_epoch_and_every_image_is_augmented_anew_and_by_its_own_draw() -> None:
    images = seen(Finetune(randaugment=""))
    assert len({image.numpy().tobytes() for image in images}) > 35  # two crops may look alike: rows are
    ramp = np.tile(np.linspace(40, 200, 56).astype(np.uint8), (56, 1))
    recipe = Finetune(randaugment="", epochs=1, batch=6)
    (pair, labels), *_ = batches([ramp] * 6, list(range(6)), recipe, 28, 0, 0)
    assert len({image.numpy().tobytes() for image in pair}) == 6
    alone = {
        int(n): image
        for (image,), (n,) in batches([ramp] * 6, list(range(6)), replace(recipe, batch=1), 28, 0, 0)
    }
    assert all(torch.equal(alone[int(n)], image) for image, n in zip(pair, labels, strict=True))
    (other, numbers), *_ = batches([ramp] * 6, list(range(6)), recipe, 28, 1, 0)
    assert not any(torch.equal(alone[int(n)], image) for image, n in zip(other, numbers, strict=True))


def test_randaugment_is_on_unless_the_recipe_leaves_it_out() -> None:
    plain = Finetune(crop_scale=(1.0, 1.0), randaugment="")
    assert not torch.equal(seen(plain), seen(replace(plain, randaugment="rand-m9-mstd0.5-inc1")))


def test_draws_of_others_go_on_as_if_nothing_had_been_drawn() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = draws()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with seeded_generators((0, 1)):
        first = draws()
    assert draws() == before
    with seeded_generators((0, 1)):
        assert draws() == first
    for key in ((1, 1), (0, 2), (0, 1, 1)):
        with seeded_generators(key):
            assert not set(draws()) & set(first)


def test_posterizing_to_no_bits_keeps_the_uppermost() -> None:
    grey = Image.fromarray(np.array([[10, 130, 255]], np.uint8))
    assert [np.asarray(_posterize(grey, bits)).tolist() for bits in (0, 1, 2, 8)] == [
        [[0, 128, 128]], [[0, 128, 128]], [[0, 128, 192]], [[10, 130, 255]],
    ]  # fmt: skip


def test_a_step_does_not_seed_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("stochastic depth would draw the same numbers after each step's erasing")

    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, fail)
    with seeded_generators((0, 1)):
        torch.rand(1)
