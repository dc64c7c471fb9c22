"""A frozen encoder sees each image as a network is tested on it, whatever part the image is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, EvalModel, Probe
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.pixels.gray_pixels import Pixels, decode_grey, resize_for_testing
from retfound_dist.evaluate.probe.attentive_probe import open_tokens
from retfound_dist.evaluate.probe.encoder_images import EncoderImages
from retfound_dist.evaluate.probe.frozen_features import cached_features, compute_features, frozen_encoder
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import class_folders

PARTS = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "set")


@pytest.fixture
def start() -> StartingWeights:
    return open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))


@pytest.fixture
def data(folder: Path) -> LabelledSet:
    return load_labelled_set(EvalData(path=str(folder)), 28)


def direct(data: LabelledSet, part: str, folder: Path) -> list[Pixels]:
    """Each image from its file, resized and cropped once."""
    files = {path.stem: path for path in folder.rglob("*") if path.is_file()}
    keys = [key.rpartition("/")[2] for key in data.parts[part].keys]
    return [
        resize_for_testing(decode_grey(files[key.rpartition(".")[0] or key].read_bytes()), 28) for key in keys
    ]


@pytest.mark.parametrize("part", ["val", "test"])
def test_images_of_val_and_test_are_resized_once(
    part: str, data: LabelledSet, start: StartingWeights, folder: Path
) -> None:
    images = EncoderImages(data, [part], start.backbone)
    assert len(images) == len(data.parts[part]) > 0
    for seen, expected in zip(images, direct(data, part, folder), strict=True):
        assert np.array_equal(seen, expected)


def test_several_parts_stand_one_after_the_other(data: LabelledSet, start: StartingWeights) -> None:
    images = EncoderImages(data, PARTS, start.backbone)
    assert {image.shape for image in images} == {(28, 28)}
    last = len(images) - 1
    assert np.array_equal(images[last], EncoderImages(data, ["test"], start.backbone)[-1])
    assert len(images[2:5]) == 3
    assert np.array_equal(images[2:5][0], images[2])


def test_features_and_tokens_are_of_these_pixels(
    data: LabelledSet, start: StartingWeights, folder: Path, tmp_path: Path
) -> None:
    expected = compute_features(frozen_encoder(start), start.backbone, direct(data, "test", folder))
    cached = cached_features(start, data, ("test",), str(tmp_path / "cache"))["test"]
    np.testing.assert_allclose(cached, expected, atol=1e-5)
    train = data.parts["train"]
    images = EncoderImages(data, ("train", "test"), start.backbone)
    groups_N = np.arange(len(train))
    tokens = open_tokens(start, images, train.labels, groups_N, Probe(), ProgressDisplay(quiet=True))
    assert tokens is not None
    first_test = np.array([len(train)])
    np.testing.assert_allclose(tokens(first_test)[0].float().mean(0), expected[0], atol=2e-3)
