"""Reads images and prepares them as the evaluation prepares its test images.

    images = read_images("folder", like=classifier)
    images.pixels                                   # uint8, (N, 1, S, S)

Shapes: N images, H W pixels of an image, S the side of the model's input.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfound_dist.errors import DataError
from retfound_dist.evaluate.commands.embed import list_images
from retfound_dist.evaluate.pixels.gray_pixels import BICUBIC, Pixels, decode_grey, pixels_or_reason
from retfound_dist.files.image_files import read_file
from retfound_dist.images.channels import scale_to_8_bit, to_grey
from retfound_dist.images.decoding import check_sides
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Backbone

ImageSource: TypeAlias = "str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]]"
"""A folder, a file, the URL of a shard set, an array, or a list of files and arrays."""
BATCH_SIZE = 512
"""Images in memory at once, where nothing else is asked for."""
_NAMED = 3
"""How many unreadable images an error names."""


class TakesImages(Protocol):
    """A `Classifier` or an `Encoder`."""

    image_size: int
    backbone: Backbone


@dataclass(frozen=True)
class PreparedImages:
    """Gray images of one size, and the names of those that could not be read."""

    keys: list[str]
    """Path below the folder, file as it was given, sample of the shard set, or place in the arrays."""
    pixels: Pixels
    """(N, 1, S, S)"""
    skipped: list[tuple[str, str]]
    """Key and reason of each image that cannot be read."""
    notes: tuple[str, ...] = ()
    """A sentence for each kind of file of the folder that is no image, or was not followed."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def tensor(self) -> Tensor:
        """The pixels as a tensor of the same memory, for `model(images.tensor)`."""
        return torch.from_numpy(self.pixels)


@dataclass(frozen=True)
class _Item:
    """One image that is not read yet."""

    key: str
    content: Any
    """A function that gives the file's bytes, or the array itself."""

    def gray(self) -> Pixels:
        """(H, W)"""
        if isinstance(self.content, np.ndarray):
            return _gray_of_array(self.content)
        return decode_grey(self.content())


def read_images(
    source: ImageSource, like: TakesImages | int, *, skip_unreadable: bool = False
) -> PreparedImages:
    """All images of a source, for a model of this size.

    `source`: a folder (with its subfolders), a file, the URL of a shard set, an array, or a list of files
    and arrays. Arrays are gray (H, W), colour (H, W, 3), or the slices (N, H, W) of a volume. Arrays of more
    than 8 bit are scaled as files are (docs/datasets.md). `like`: the model that shall take the images, or
    their side in pixels. The shorter side is resized to 256/224 of the model's, and the centre is cut out.
    DataError names the images that cannot be read; with `skip_unreadable` they are in `skipped` instead.
    """
    batches = list(_batches(source, like, BATCH_SIZE))
    images = PreparedImages(
        [key for batch in batches for key in batch.keys],
        np.concatenate([batch.pixels for batch in batches]),
        [pair for batch in batches for pair in batch.skipped],
        batches[0].notes,
    )
    return _checked(images, skip_unreadable)


def read_image_batches(
    source: ImageSource,
    like: TakesImages | int,
    *,
    batch_size: int = BATCH_SIZE,
    skip_unreadable: bool = False,
) -> Iterator[PreparedImages]:
    """`read_images` in batches, for sets that do not fit into memory.

    A batch has `batch_size` images, or fewer where some cannot be read, and at the end.
    """
    return (_checked(images, skip_unreadable) for images in _batches(source, like, batch_size))


def _batches(source: ImageSource, like: TakesImages | int, batch_size: int) -> Iterator[PreparedImages]:
    if isinstance(like, int):
        side, interpolation = like, BICUBIC
    else:
        side, interpolation = like.image_size, like.backbone.preparation.interpolation
    items, notes = _list_items(source)
    if not items:
        raise DataError("read_images was given an empty list: give files, arrays, a folder or a shard set")
    for begin in range(0, len(items), batch_size):
        yield _read_batch(items[begin : begin + batch_size], side, interpolation, notes)


def _list_items(source: ImageSource) -> tuple[list[_Item], tuple[str, ...]]:
    if isinstance(source, np.ndarray):
        is_volume = source.ndim == 3 and source.shape[-1] != 3
        return _list_items(list(source) if is_volume else [source])
    if not isinstance(source, (str, Path)):
        return [_item(place, one) for place, one in enumerate(source)], ()
    if storage.is_local(str(source)) and Path(storage.local_path(str(source))).is_file():
        return [_item(0, source)], ()
    images, notes = list_images(str(source))
    return [_Item(image.key, image.read) for image in images], tuple(notes)


def _item(place: int, one: str | Path | NDArray[Any]) -> _Item:
    if isinstance(one, np.ndarray):
        return _Item(str(place), one)
    url = str(one)
    if not storage.is_local(url):
        return _Item(url, partial(storage.read_bytes, url))
    # A file that the caller names himself may be a link to anywhere.
    folder, name = os.path.split(os.path.realpath(storage.local_path(url)))
    return _Item(url, partial(read_file, folder, name, "anywhere"))


def _gray_of_array(values: NDArray[Any]) -> Pixels:
    """(H, W) in 8 bit, as a file with these samples is read."""
    if values.ndim != 2 and (values.ndim != 3 or values.shape[-1] != 3):
        raise DataError(f"has the shape {values.shape}: give (H, W) in gray or (H, W, 3) in colour")
    return check_sides(to_grey(scale_to_8_bit(values)))


def _read_batch(
    items: Sequence[_Item], side: int, interpolation: str, notes: tuple[str, ...]
) -> PreparedImages:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        read = partial(pixels_or_reason, side=side, interpolation=interpolation)
        results = list(pool.map(read, [item.gray for item in items]))
    pairs = list(zip((item.key for item in items), results, strict=True))
    good = {place: result for place, (_, result) in enumerate(pairs) if not isinstance(result, str)}
    pixels = np.stack(list(good.values()))[:, None] if good else np.empty((0, 1, side, side), np.uint8)
    skipped = [(key, result) for key, result in pairs if isinstance(result, str)]
    return PreparedImages([items[place].key for place in good], pixels, skipped, notes)


def _checked(images: PreparedImages, skip_unreadable: bool) -> PreparedImages:
    """The same images; DataError where some are missing and that was not allowed."""
    if images.skipped and not skip_unreadable:
        examples = "; ".join(f"{key}: {reason}" for key, reason in images.skipped[:_NAMED])
        more = f"; and {len(images.skipped) - _NAMED} more" if len(images.skipped) > _NAMED else ""
        raise DataError(
            f"{len(images.skipped)} of {len(images) + len(images.skipped)} images cannot be read "
            f"({examples}{more}): replace them, or leave them out with skip_unreadable=True"
        )
    return images
