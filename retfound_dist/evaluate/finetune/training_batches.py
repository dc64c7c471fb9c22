"""Training batches: crop, flip and RandAugment of an image depend only on (seed, epoch, image).

So a batch is the same with any number of loader processes. They come from a fork server, because threads of
this process would not survive a fork. They read the pixels from one file.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.pixels.gray_pixels import BICUBIC, Pixels
from retfound_dist.io.scratch import Scratch, temporary_disk_errors
from retfound_dist.model.mae import IMAGENET_MEAN, IMAGENET_STD
from retfound_dist.runtime import worker_leftovers
from retfound_dist.stream.tensor_transfer import send_tensors_in_memory

# Purposes in the keys of random generators; finetuning.py lists all of them.
_ORDER, _IMAGE = 11, 12
Row = tuple[int, int]
"""(epoch, image number)."""


class PixelFile:
    """Grey images of any size in one flat file, opened anew in each process."""

    def __init__(self, images: Sequence[Pixels], path: str) -> None:
        self.path = path
        self.shapes = [image.shape for image in images]
        self.offsets = np.cumsum([0, *(image.size for image in images)])
        with open(path, "wb") as file:
            for image in images:
                file.write(np.ascontiguousarray(image).data)

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.memmap(self.path, dtype=np.uint8, mode="r")

    def __getitem__(self, index: int) -> Pixels:
        return self._bytes[self.offsets[index] : self.offsets[index + 1]].reshape(self.shapes[index])

    # Without the mapping: pickling it would copy all pixels to every loader process.
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_bytes"}


class AugmentedImages(Dataset[tuple[Tensor, Any]]):
    """(3, S, S) uint8 and the label or other target for a Row."""

    def __init__(
        self,
        images: PixelFile,
        labels: Sequence[Any],
        recipe: Finetune,
        side: int,
        seed: int,
        interpolation: str,
    ) -> None:
        self.images, self.labels, self.recipe, self.side, self.seed = images, labels, recipe, side, seed
        self.interpolation = interpolation

    @cached_property
    def transform(self) -> Any:
        """timm's crop, flip and RandAugment. Random erasing is applied to the whole batch later."""
        transform = create_transform(
            self.side,
            is_training=True,
            # Then timm returns uint8 pixels; they are normalised and erased on the device.
            use_prefetcher=True,
            scale=self.recipe.crop_scale,
            interpolation=self.interpolation,
            auto_augment=self.recipe.randaugment or None,
            color_jitter=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        )
        for step in transform.transforms:
            for operation in getattr(step, "ops", ()):
                # timm 1.0.31 has no setting for this, so the operation is replaced in the finished pipeline.
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = _posterize
        return transform

    def __getitem__(self, row: Row) -> tuple[Tensor, Any]:
        epoch, index = row
        image = Image.fromarray(self.images[index]).convert("RGB")
        with seeded_generators((self.seed, _IMAGE, epoch, index)):
            return self.transform(image), self.labels[index]


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the upper bits. timm may ask for 0 bits, which Pillow 13 refuses."""
    return ImageOps.posterize(image, max(1, bits))


class seeded_generators:
    """Seeds Python's, NumPy's and torch's CPU generators for a `with` block, then restores them."""

    # timm and torchvision do not accept a generator: they use these three global ones. Not the GPU's: a step
    # must not seed it again, because stochastic depth draws from it.
    def __init__(self, key: Sequence[int]) -> None:
        self.seed = int(np.random.default_rng(key).integers(2**31))

    def __enter__(self) -> None:
        self.saved_states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        random.setstate(self.saved_states[0])
        np.random.set_state(self.saved_states[1])
        torch.set_rng_state(self.saved_states[2])


class EpochBatches(Sampler[list[Row]]):
    """Batches of all epochs in one stream. Each epoch is shuffled again; its last batch may be smaller."""

    def __init__(self, images: int, epochs: int, batch: int, seed: int) -> None:
        self.images, self.epochs, self.batch, self.seed = images, epochs, batch, seed

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return -(-self.images // self.batch)

    def __len__(self) -> int:
        return self.steps * self.epochs

    def __iter__(self) -> Iterator[list[Row]]:
        for epoch in range(self.epochs):
            order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(self.images)
            for start in range(0, self.images, self.batch):
                yield [(epoch, int(index)) for index in order[start : start + self.batch]]


def _fork_server() -> BaseContext:
    """The multiprocessing context of the loader processes: they are forked from a server.

    The server imports this module, and so torch and timm, once for all of them.
    """
    # Before the server starts, because it inherits the names: by them a later process can remove what this
    # one leaves behind if it is killed.
    worker_leftovers.name_after_owner()
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def batches(
    images: Sequence[Pixels],
    labels: Sequence[Any],
    recipe: Finetune,
    side: int,
    seed: int,
    workers: int,
    interpolation: str = BICUBIC,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Every batch of every epoch: (B, 3, S, S) uint8 and labels (B,), or other targets (B, T).

    `images`: grey, each (H, W) of its own size. `labels`: the target of each image. `side`: S in pixels.
    `workers`: number of loader processes; 0: this process.
    """
    with Scratch("pixels", uuid.uuid4().hex) as scratch:
        with temporary_disk_errors(scratch.folder):
            file = PixelFile(images, str(Path(scratch.folder) / "pixels"))
        order = EpochBatches(len(labels), recipe.epochs, recipe.batch, seed)
        loader = DataLoader(
            AugmentedImages(file, labels, recipe, side, seed, interpolation),
            batch_sampler=order,
            num_workers=workers,
            multiprocessing_context=_fork_server() if workers else None,
            worker_init_fn=send_tensors_in_memory if workers else None,
            # Otherwise each copy to the GPU would wait for the step before.
            pin_memory=torch.cuda.is_available(),
        )
        yield from loader
