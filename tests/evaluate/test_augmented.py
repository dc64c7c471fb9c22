from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from retfound_dist.evaluate.augmented import Epochs, batches
from retfound_dist.evaluate.dataset import LabelledSet, load
from retfound_dist.schema import EvalData, Finetune
from tests.evaluate.inputs import class_folders


@pytest.fixture
def data(tmp_path: Path) -> LabelledSet:
    return load(EvalData(path=str(class_folders(tmp_path / "set"))), 28)


def test_every_image_comes_once_an_epoch_in_another_order() -> None:
    rows = list(Epochs(10, 2, 4, seed=0))
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
