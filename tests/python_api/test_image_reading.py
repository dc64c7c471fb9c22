"""Images of every source are prepared as the evaluation prepares them, and none is lost without a word."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retfound_dist import read_image_batches, read_images
from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.pixels.gray_pixels import decode_grey, resize_for_testing
from tests.evaluate.inputs import class_folders, image_bytes, shard_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "set", each=4)


def test_a_folder_gives_the_pixels_of_the_evaluations_test_part(folder: Path) -> None:
    part = load_labelled_set(EvalData(path=str(folder)), image_size=28).parts["test"]
    images = read_images(str(folder), like=28)
    assert len(images) == 12
    assert images.pixels.shape == (12, 1, 28, 28)
    assert images.pixels.dtype == np.uint8
    assert torch.equal(images.tensor, torch.from_numpy(images.pixels))
    of_key = dict(zip(images.keys, images.pixels[:, 0], strict=True))
    assert len(part.keys) > 0
    for key, expected in zip(part.keys, part.images, strict=True):
        assert np.array_equal(of_key[key], expected)


def test_the_models_own_interpolation_is_used(folder: Path) -> None:
    model: Any = SimpleNamespace(
        image_size=28, backbone=SimpleNamespace(preparation=SimpleNamespace(interpolation="nearest"))
    )
    file = folder / "MH" / "MH_0.jpg"
    expected = resize_for_testing(decode_grey(file.read_bytes()), 28, "nearest")
    assert np.array_equal(read_images(file, like=model).pixels[0, 0], expected)
    assert not np.array_equal(read_images(file, like=28).pixels[0, 0], expected)


def test_files_arrays_volumes_and_shards_are_read(folder: Path, tmp_path: Path) -> None:
    file = folder / "MH" / "MH_0.jpg"
    gray = decode_grey(file.read_bytes())
    colour = np.repeat(gray[..., None], 3, axis=2)
    expected = read_images(file, like=28).pixels
    mixed = read_images([str(file), file, gray, colour], like=28)
    assert mixed.keys == [str(file), str(file), "2", "3"]
    assert all(np.array_equal(row, expected[0]) for row in mixed.pixels)
    assert read_images(np.stack([gray] * 5), like=28).keys == ["0", "1", "2", "3", "4"]
    assert read_images(colour, like=28).pixels.shape == (1, 1, 28, 28)
    shards = shard_set(tmp_path / "shards", [{"key": "a", "label": "MH"}, {"key": "b", "label": "MH"}])
    of_shards = read_images(str(shards), like=28)
    assert of_shards.keys == ["a", "b"]
    again = resize_for_testing(decode_grey(image_bytes(1, 0)), 28)
    assert np.array_equal(of_shards.pixels[0, 0], again)


def test_a_deep_array_is_scaled_as_a_deep_file_is(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4000, (60, 60)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    of_file, of_array = read_images(tmp_path / "deep.png", like=28), read_images(deep, like=28)
    assert np.array_equal(of_file.pixels, of_array.pixels)


def test_unreadable_images_are_an_error_that_names_them_or_are_listed(folder: Path) -> None:
    (folder / "CSR" / "bad.png").write_bytes(b"no image")
    (folder / "MH" / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 14 images cannot be read \(CSR/bad.png: .*MH/empty.png: "):
        read_images(folder, like=28)
    images = read_images(folder, like=28, skip_unreadable=True)
    assert [key for key, _ in images.skipped] == ["CSR/bad.png", "MH/empty.png"]
    assert all(reason for _, reason in images.skipped)
    assert len(images) == 12
    missing: list[Any] = [
        np.zeros((60, 60), np.uint8),
        str(folder / "none.png"),
        np.zeros((2, 3, 4, 5), np.uint8),
    ]
    images = read_images(missing, like=28, skip_unreadable=True)
    assert images.keys == ["0"]
    assert [key for key, _ in images.skipped] == [str(folder / "none.png"), "2"]


def test_batches_have_the_images_of_the_whole_and_name_what_is_unreadable(folder: Path) -> None:
    whole = read_images(folder, like=28)
    batches = list(read_image_batches(folder, like=28, batch_size=5))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [key for batch in batches for key in batch.keys] == whole.keys
    assert np.array_equal(np.concatenate([batch.pixels for batch in batches]), whole.pixels)
    (folder / "CSR" / "CSR_0.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 5 images cannot be read"):
        list(read_image_batches(folder, like=28, batch_size=5))
    first = next(read_image_batches(folder, like=28, batch_size=1, skip_unreadable=True))
    assert (len(first), len(first.skipped)) == (0, 1)


def test_other_files_of_a_folder_are_named_and_an_empty_source_is_an_error(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "notes.txt").write_text("none")
    assert any("notes.txt" in note for note in read_images(folder, like=28).notes)
    with pytest.raises(DataError, match="empty list"):
        read_images([], like=28)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        read_images(tmp_path / "empty", like=28)
    with pytest.raises(DataError, match=r"nothing_here"):
        read_images(tmp_path / "nothing_here", like=28)
