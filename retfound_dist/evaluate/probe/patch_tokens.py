"""Patch tokens of a frozen encoder, read by the number of an image; those that are read often are kept.

The tokens of a ViT-L at 224 pixels are 0.4 MB an image. So only the images that a probe is fitted on are
kept, in memory and in fp16. The other images are needed once, and are computed when they are read.

Shapes: B images of a batch, S their side, L patches, or places of a feature map, D the encoder's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.probe.frozen_features import BATCH, frozen_encoder
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback

Indices = NDArray[np.int64]
ReadTokens = Callable[[Indices], Tensor]
"""The tokens (B, L, D) of the images with these numbers."""


def in_batches(indices: Indices) -> Iterator[Indices]:
    """Slices of at most `BATCH` images."""
    for begin in range(0, len(indices), BATCH):
        yield indices[begin : begin + BATCH]


class PatchTokens:
    """The tokens of these images; call it with numbers of images (`ReadTokens`)."""

    def __init__(
        self,
        start: StartingWeights,
        images: Sequence[Pixels],
        kept: Indices,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        """Computes the tokens of the images in `kept`. `images`: gray, (S, S) each."""
        self._start, self._images = start, images
        self._model = frozen_encoder(start)
        self._kept_ILD: Tensor | None = None
        self._place = {int(index): place for place, index in enumerate(kept)}
        done = 0
        for batch in in_batches(kept):
            tokens_BLD = self._compute(batch)
            if self._kept_ILD is None:
                self._kept_ILD = torch.empty((len(kept), *tokens_BLD.shape[1:]), dtype=torch.float16)
            self._kept_ILD[done : done + len(batch)] = tokens_BLD
            done += len(batch)
            if on_progress:
                on_progress(done, len(kept))

    def __call__(self, indices: Indices) -> Tensor:
        """(B, L, D) in fp16, on the CPU."""
        places = [self._place.get(int(index)) for index in indices]
        if self._kept_ILD is None or None in places:
            return self._compute(indices)
        return self._kept_ILD[places]

    @torch.no_grad()
    def _compute(self, indices: Indices) -> Tensor:
        backbone, device = self._start.backbone, next(self._model.parameters()).device
        batch = torch.from_numpy(np.stack([self._images[i] for i in indices])[:, None]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            tokens_BLD = backbone.positions(self._model, backbone.preparation.normalise(batch))
        # A few channels of some encoders are huge; in fp16 they would be infinite.
        largest = torch.finfo(torch.float16).max
        return tokens_BLD.float().clamp(-largest, largest).half().cpu()
