"""The loss on patients that are never trained on, for the same images and masks at each checkpoint.

Images and masks follow from the shard set alone, not from the run's seed, ranks or steps: losses of
several runs on one set may be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.stream.held_out_part import held_out_part
from retfound_dist.stream.loader import MicroBatch, open_stream
from retfound_dist.train.ranks.collectives import RankGroup

# Not the run's seed: losses of runs with other seeds may be compared, for they are on the same images and
# masks.
SEED = 0
"""Seed of the choice of images and of their masks."""


@dataclass(frozen=True)
class HeldOut:
    """This rank's share of the held-out images."""

    count: int
    """Images of all ranks."""
    part: list[MicroBatch]
    """On the host. Every rank has the same number of micro-batches, padded with weight 0."""

    def score(self, engine: Any, model: MaskedAutoencoder, group: RankGroup) -> float:
        """Mean loss over all of them; every rank must call it after the same step."""
        total = torch.zeros((), dtype=torch.float64, device=group.device)
        forward = _forward(engine, model)
        model.eval()
        with torch.no_grad():
            for batch in self.part:
                tensors = (t.to(group.device) for t in (batch.images, batch.noise, batch.weight))
                images, noise, weight = tensors
                total += (forward(images, noise) * weight).sum()
        model.train()
        return float(group.sum(total)) / self.count


def open_held_out(
    config: PretrainConfig, manifest: Manifest, group: RankGroup, micro: int, patches: int
) -> HeldOut | None:
    """Read this rank's share once; None where nothing is held out.

    Whole images (no random crop, no flip), `data.held_out_images` of them, or all there are.
    """
    part = held_out_part(config.data, manifest)
    if not part:
        return None
    count = min(config.data.held_out_images, sum(shard.samples for shard in manifest.part(part)))
    whole = replace(config.data, split=part, workers=0, crop_scale=(1.0, 1.0), flip=0.0)
    with open_stream(
        manifest,
        count,
        micro_batch=micro,
        image_size=config.model.image_size,
        patches=patches,
        seed=SEED,
        world=group.world,
        stop_step=1,
        data=whole,
        counted=True,
    ) as stream:
        return HeldOut(count, list(stream))


def _forward(engine: Any, model: MaskedAutoencoder) -> Callable[[Tensor, Tensor], Tensor]:
    """The forward pass that is not compiled; at ZeRO 3 the engine's, which gathers the weights."""
    # The compiled one would be compiled once more, for `eval` and `no_grad` change what it may assume.
    if engine.zero_optimization_stage() == 3:
        return engine  # type: ignore[no-any-return]
    return lambda images, noise: MaskedAutoencoder.forward(model, images, noise)
