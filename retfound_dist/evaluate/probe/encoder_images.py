"""The images of a labelled set as a frozen encoder reads them. Shapes: H W pixels, S the input's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from retfound_dist.evaluate.data.label_subset import TRAIN
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.pixels.gray_pixels import Pixels, resize_for_testing
from retfound_dist.model.backbones.backbone import Backbone

FEATURES_VERSION = 2
"""Stored with probes. In version 1, images of val and test were resized and cropped twice, which magnified
them by 256/224. Probes of two versions must not be compared."""


class EncoderImages(Sequence[Pixels]):
    """The images of these parts one after the other, (S, S) each, resized when they are read.

    Train images are stored larger, for random crops. Those of val and test have their size already.
    """

    def __init__(self, data: LabelledSet, parts: Sequence[str], backbone: Backbone) -> None:
        self._images = [(name == TRAIN, image) for name in parts for image in data.parts[name].images]
        self._side, self._interpolation = backbone.image_size, backbone.preparation.interpolation

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pixels]: ...

    def __getitem__(self, index: int | slice) -> Pixels | list[Pixels]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        is_larger, image = self._images[index]
        return resize_for_testing(image, self._side, self._interpolation) if is_larger else image
